"""What the hardening tests start from: a ledger origin, a driven clock, a rule file."""

from __future__ import annotations

from tests.scenarios.conftest import clock, origin, rules

__all__ = ["clock", "origin", "rules"]
