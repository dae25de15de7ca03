"""The admin token in a file.

Rules of this file:

- A token file is readable by its owner only, or it is refused: a token that others can read is none.
- ``make_token`` writes one where there is none, whole or not at all, so that on one's own machine
  ``edgeproxy purge`` works without anything being set.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 4096
TOKEN_FILE = "admin-token"  # noqa: S105 - a name, no token
"""Where ``serve`` keeps the token it made, in the cache directory."""


def read_token(path: Path, *, private: bool = True) -> str:
    """The token in ``path``, white space around it gone.

    Raises ValueError, one clear line, if the file cannot be read, is empty, or (``private``) may be read by
    others. Secrets mounted into containers are often world-readable: ``private=False`` is for a path that
    an operator named.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(LONGEST + 1)
    except OSError as error:
        raise ValueError(f"token file {path}: {error.strerror}") from None
    if private and stat.S_IMODE(mode) & 0o077:
        raise ValueError(f"token file {path}: others may read it; 'chmod 600' it and change the token")
    token = raw.decode("latin-1").strip()
    if not token or len(raw) > LONGEST:
        raise ValueError(f"token file {path}: expected one token of at most {LONGEST} octets")
    return token


def make_token(path: Path) -> str:
    """The token in ``path``; a new random one is written there if there is no file. Raises ValueError."""
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(fd, f"{secrets.token_urlsafe(32)}\n".encode("ascii"))
            finally:
                os.close(fd)
            # Whoever links first wins; the others read the winner's.
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
        except OSError as error:
            raise ValueError(f"token file {path}: {error.strerror}") from None
        finally:
            fresh.unlink(missing_ok=True)
    return read_token(path)
