"""The rule files in force, as a copy: all workers of a node read the same octets, whenever they start.

Rules of this file:

- What is copied is what was read, checked and found right; a copy is never changed, and named by its version.
- An operator edits the files at leisure: until the next reload, a worker that has to be replaced starts with
  the rules that the others have.
- The copy before the present one is kept: a worker that was started a moment ago may be reading it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy.rules.load import load_bytes, read_files, version_of
from edgeproxy.rules.model import RuleSet

if TYPE_CHECKING:
    from pathlib import Path


class RuleSnapshot:
    """``source`` None: no rules, and nothing is ever copied. ``place``: a directory for the copies."""

    def __init__(self, source: Path | None, place: Path) -> None:
        self.source = source
        self.ruleset = RuleSet()
        """What is in force."""
        self.directory: Path | None = None
        """Where its copy is."""
        self._place = place
        self._before: Path | None = None

    def take(self, source: Path | None = None) -> RuleSet:
        """Read the files (of ``source``, where one is given, and from then on), check and copy them. Blocks.
        Raises RuleError and OSError, and then what was in force still is."""
        source = source or self.source
        if source is None:
            return self.ruleset
        files = read_files(source)
        if self.directory is not None and version_of(files) == self.ruleset.version:
            self.source = source
            return self.ruleset
        ruleset = load_bytes(files, source=str(source))
        directory = self._place / f"rules-{ruleset.version}"
        if directory != self.directory:
            if not directory.exists():
                fresh = self._place / "rules.new"
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir()
                for name, octets in files:
                    (fresh / name).write_bytes(octets)
                fresh.rename(directory)
            if self._before is not None and self._before != directory:
                shutil.rmtree(self._before, ignore_errors=True)
            self._before, self.directory = self.directory, directory
        self.source = source
        self.ruleset = replace(ruleset, source=str(source))
        return self.ruleset
