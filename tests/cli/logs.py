"""Access logs made by hand: lines in the form that observe/access_log.py writes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = 1_767_225_600.0
"""2026-01-01T00:00:00Z, the moment 0 of these logs."""


def line(at: float, target: str, **fields: Any) -> str:
    """A request that came ``at`` seconds after BEGIN: a miss, passed by nobody's rule unless told."""
    record = {
        "time": f"{datetime.fromtimestamp(BEGIN + at, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
        "request_id": "r", "client": "192.0.2.1", "method": "GET", "host": "a.example", "target": target,
        "status": 200, "bytes": 100, "bytes_in": 0, "seconds": 0.0, "rule": "none", "cache": "MISS",
        "reason": "no-lifetime", "tier": "origin", "age": None, "ttl": None, "origin_seconds": 0.0,
        "queue_seconds": 0.0, "collapsed": False, "stored": False, "coding": "", "aborted": False,
        **fields,
    }  # fmt: skip
    return json.dumps(record)


def write(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{each}\n" for each in lines))
    return str(path)
