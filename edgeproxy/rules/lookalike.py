"""What an origin may take a path for: most decode it, many drop ";…" and merge slashes, some turn others.

Rules of this file: only a path that looks otherwise then has another reading; nearly all have one alone. Case
is left as it is, and dot segments have a rule of their own (match.py).
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_ODD = re.compile(r"[%;\\]|//")
_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"/{2,}")
MOST_DECODED = 3
"""Times: "%2561" is "a" to whoever decodes twice."""


def other_reading(path: str) -> str | None:
    """``path`` as the most lenient origin reads it; None where all read it alike."""
    if _ODD.search(path) is None:
        return None
    read = path
    for _ in range(MOST_DECODED):
        decoded = unquote(read, encoding="latin-1")
        if decoded == read:
            break
        read = decoded
    read = _SLASHES.sub("/", _PARAMETERS.sub("", read.replace("\\", "/")))
    return None if read == path else read
