"""The settings in force, and a copy of the --config file that they are from: all workers read the same one.

Rules of this file:

- What is copied has been read and found right. An operator edits the file at leisure: until the workers are
  replaced, one that has crashed starts again with the settings that the others have.
- FIXED are the settings that only a restart changes: the parent holds what they stand for, or old and new
  workers would not share it while one replaces the other.
- A copy is in the directory of the node, which only we can open; the one before it is kept for ``give_back``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.settings import Settings

log = logging.getLogger("edgeproxy")

FIXED = {
    "listen": "--listen",
    "admin": "--admin",
    "store": "--store (by default one for each --origin)",
    "cache_dir": "--cache-dir",
    "node": "--node",
    "rules": "--rules",
    "rule_history": "--rule-history",
    "admin_tls_certificate": "--admin-tls-certificate",
    "admin_tls_client_ca": "--admin-tls-client-ca",
    "purge_rate": "--purge-rate",
    "admin_token": "--admin-token-file",
    "read_token": "--read-token-file",
    "alerts": "--alerts",
    "alert_urls": "EDGEPROXY_ALERT_URLS",
}


class ConfigCopy:
    """``source`` None: there is no file. ``load`` reads the settings with this --config (None: with none)."""

    def __init__(self, source: str | None, load: Callable[[str | None], Settings]) -> None:
        self._source = source
        self._load = load
        self._taken = 0
        self.settings = load(source)
        """What is in force, as it was given."""
        self.path: Path | None = None
        """The copy that workers read."""
        self._before: tuple[Settings, Path | None] = (self.settings, None)

    def take(self, place: Path) -> Settings:
        """Read the file again and copy it to ``place``. Blocks. Raises SettingsError, and then what was in
        force still is."""
        if self._source is None:
            settings, path = self._load(None), None
        else:
            source = Path(self._source)
            self._taken += 1
            path = place / f"config-{self._taken}{source.suffix}"
            try:
                path.write_bytes(source.read_bytes())
            except OSError as error:
                raise SettingsError(f"--config: {source}: {error.strerror}") from None
            try:
                settings = self._load(str(path))
            except SettingsError as error:
                path.unlink()
                raise SettingsError(str(error).replace(str(path), str(source))) from None
        changed = [
            flag for name, flag in FIXED.items() if getattr(settings, name) != getattr(self.settings, name)
        ]
        if changed:
            raise SettingsError(f"{', '.join(changed)}: changed, which takes a restart")
        self._before = (self.settings, self.path)
        self.settings, self.path = settings, path
        return settings

    def give_back(self) -> Settings:
        """What was in force before is so again."""
        self.settings, self.path = self._before
        return self.settings
