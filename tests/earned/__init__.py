"""Tests of edgeproxy.earned."""
