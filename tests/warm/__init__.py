"""Asking before clients do."""
