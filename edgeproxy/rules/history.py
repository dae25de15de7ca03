"""The versions that the rules had, kept on disk, so that one can be brought back.

Rules of this file:

- A set of files is kept once, under its digest, and checked against it when it is read; the history is a list
  of numbers with what was in force from when, and why. Numbers only grow.
- ``held`` says that one version is in force in place of what the files say, as long as they say just that:
  files that are edited win again. ``candidate`` is a set that is tried beside the one in force.
- Bounded: ``keep`` numbers and MOST_OCTETS of files; what is in force, held or tried is never dropped.
- Whatever is written is whole or not there: a new name, then a rename, under a lock between processes.
- It blocks: not for the loop.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.rules.load import read_files, version_of
from edgeproxy.rules.taken import Files, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgeproxy.rules.taken import Taken

log = logging.getLogger("edgeproxy")

MOST_OCTETS = 256 * 1024 * 1024
FORMAT = 1


class Version(msgspec.Struct, frozen=True):
    """``version``: the digest of the files; ``at``: in force since then, in seconds since 1970; ``how``: what
    brought it (start, reload, rollback, promote); ``by``: who, as they said."""

    number: int
    version: str
    at: float
    how: str
    by: str = ""
    rules: int = 0
    source: str = ""


class Held(msgspec.Struct, frozen=True):
    """``version`` is in force for as long as the files are those of ``instead_of``."""

    version: str
    instead_of: str


class Candidate(msgspec.Struct, frozen=True):
    """``percent`` of the keys are answered under it; of the rest one request in ``sample`` is compared."""

    version: str
    percent: float
    sample: int
    source: str = ""


class _Kept(msgspec.Struct):
    format: int = FORMAT
    versions: list[Version] = []
    held: Held | None = None
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Unknown(Exception):  # noqa: N818 - it is what happened
    """No such version is kept; the text says which are."""

    text: str

    def __str__(self) -> str:
        return self.text


class RuleHistory:
    """``place``: a directory of ours. Raises OSError where it cannot be had."""

    def __init__(self, place: Path, keep: int = 20) -> None:
        self._place = place
        self._keep = max(2, keep)
        (place / "sets").mkdir(parents=True, exist_ok=True)
        self._kept = self._read()

    @property
    def versions(self) -> Sequence[Version]:
        """Oldest first."""
        return tuple(self._kept.versions)

    @property
    def held(self) -> Held | None:
        return self._kept.held

    @property
    def candidate(self) -> Candidate | None:
        return self._kept.candidate

    def directory(self, version: str) -> Path:
        """Where the files of a version are."""
        return self._place / "sets" / version

    def files(self, version: str) -> Files:
        """Raises Unknown where they are not there, whole and unchanged."""
        try:
            files = [(path.name, path.read_bytes()) for path in sorted(self.directory(version).iterdir())]
        except OSError:
            files = []
        if not files or version_of(files) != version:
            raise Unknown(f"the files of version {version} are not kept any more")
        return files

    def find(self, word: str) -> Version:
        """By number or by the beginning of the digest; "" is the one before the present. Raises Unknown."""
        versions = self._kept.versions
        if not word:
            if len(versions) < 2:
                raise Unknown("there is no version before this one")
            return versions[-2]
        found = [v for v in versions if str(v.number) == word]
        found = found or [v for v in versions if len(word) >= 4 and v.version.startswith(word)]
        if not found:
            known = ", ".join(str(v.number) for v in versions) or "none"
            raise Unknown(f"no version {word!r}; kept are {known}")
        if len({v.version for v in found}) > 1:
            raise Unknown(f"{word!r} is the beginning of several versions")
        return found[-1]

    # -- changes ----------------------------------------------------------------------------------------

    def keep_files(self, files: Files) -> str:
        """Their version."""
        version = version_of(files)
        directory = self.directory(version)
        try:
            self.files(version)
        except Unknown:
            fresh = self._place / f"sets.{os.getpid()}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            for name, octets in files:
                (fresh / name).write_bytes(octets)
            shutil.rmtree(directory, ignore_errors=True)
            fresh.rename(directory)
        return version

    def record(self, files: Files, *, at: float, how: str, by: str, rules: int, source: str) -> None:
        """These are in force now. Nothing is added where they were before."""
        with self._changing() as kept:
            version = self.keep_files(files)
            if kept.versions and kept.versions[-1].version == version:
                return
            number = kept.versions[-1].number + 1 if kept.versions else 1
            kept.versions.append(Version(number, version, at, how, by, rules, source))

    def hold(self, held: Held | None) -> None:
        with self._changing() as kept:
            kept.held = held

    def try_out(self, candidate: Candidate | None) -> None:
        with self._changing() as kept:
            kept.candidate = candidate

    @contextmanager
    def _changing(self) -> Iterator[_Kept]:
        with (self._place / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = self._read()  # another process may have written meanwhile
            yield kept
            self._drop(kept)
            fresh = self._place / f"history.{os.getpid()}.new"
            fresh.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1))
            fresh.replace(self._place / "history.json")
            self._kept = kept

    def _read(self) -> _Kept:
        """What is damaged, or of another format, is as good as nothing."""
        try:
            kept = msgspec.json.decode((self._place / "history.json").read_bytes(), type=_Kept)
        except (OSError, msgspec.DecodeError):
            return _Kept()
        return kept if kept.format == FORMAT else _Kept()

    def _drop(self, kept: _Kept) -> None:
        del kept.versions[: -self._keep]
        wanted = {kept.held.version} if kept.held else set()
        wanted |= {kept.candidate.version} if kept.candidate else set()
        left = MOST_OCTETS
        for number, each in enumerate(reversed(kept.versions)):
            left -= 0 if each.version in wanted else self._size(each.version)
            if left < 0 and number > 1:
                kept.versions = kept.versions[len(kept.versions) - number :]
                break
            wanted.add(each.version)
        for directory in (self._place / "sets").iterdir():
            if directory.name not in wanted:
                shutil.rmtree(directory, ignore_errors=True)

    def _size(self, version: str) -> int:
        try:
            return sum(path.stat().st_size for path in self.directory(version).iterdir())
        except OSError:
            return 0


def held_text(held: Held) -> str:
    """One line for people."""
    return (
        f"the rule files are those that were taken out ({held.instead_of}): version {held.version} stays in "
        "force until they are edited"
    )


class InForce:
    """Which files are in force: those of ``source``, or what is held in their place. ``history`` None: none
    is kept, and the files it is."""

    def __init__(self, source: Path, history: RuleHistory | None) -> None:
        self.source = source
        self.history = history

    def wanted(self) -> Wanted:
        """With the candidate, where there is one. Raises RuleError."""
        files, history = self._files(), self.history
        candidate = None if history is None else history.candidate
        if history is None or candidate is None:
            return Wanted(files, str(self.source))
        try:
            tried = history.files(candidate.version)
        except Unknown:
            history.try_out(None)
            return Wanted(files, str(self.source))
        return Wanted(files, str(self.source), tried, candidate.percent, candidate.sample)

    def _files(self) -> Files:
        files, history = read_files(self.source), self.history
        if history is not None and history.held is not None:
            if history.held.instead_of == version_of(files):
                try:
                    found = history.files(history.held.version)
                except Unknown:
                    pass  # somebody has tidied up: the files are all there is
                else:
                    log.warning("%s", held_text(history.held))
                    return found
            history.hold(None)
        return files

    def hold(self, version: str) -> None:
        """Have ``version`` in force until the files are edited. Raises RuleError if they cannot be read."""
        assert self.history is not None  # noqa: S101
        now = version_of(read_files(self.source))
        self.history.hold(None if now == version else Held(version, now))

    def record(self, wanted: Wanted, taken: Taken, *, at: float, how: str, by: str) -> None:
        """These are in force now. A history that cannot be written is no reason not to serve."""
        if self.history is None:
            return
        ruleset = taken.ruleset
        try:
            self.history.record(
                wanted.files, at=at, how=how, by=by, rules=len(ruleset.rules), source=ruleset.source
            )
        except OSError as error:
            log.warning("this version of the rules is not kept: %s", error)


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told to be under, by who has checked it: copies on disk. ``candidate`` None: none."""

    directory: Path
    candidate: Path | None = None
    percent: float = 0.0
    sample: int = 0

    def wanted(self) -> Wanted:
        """Raises RuleError."""
        candidate = None if self.candidate is None else read_files(self.candidate)
        return Wanted(read_files(self.directory), str(self.directory), candidate, self.percent, self.sample)
