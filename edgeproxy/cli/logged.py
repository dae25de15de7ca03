"""The access log, read back: one Seen for each line, and a count of what could not be read.

Rules of this file:

- Reads what observe/access_log.py writes, plain or gzipped, from a file or from standard input ("-").
- A line at a time, of bounded length; what is read is not kept.
- Nothing raises over a bad line: it is counted, and the first is kept with its number and what is wrong.
- Masked values (``***``) are counted: what stood there, nobody knows any more.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, cast

import orjson

from edgeproxy.observe.access_log import MASK
from edgeproxy.rules.seen import Seen
from edgeproxy.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_LINE = 1024 * 1024
EVERY = 4096
"""Lines between two looks of the progress bar."""
WIDTH = 30

_MASKED = f"={MASK}"
_GZIP = b"\x1f\x8b"


class Source:
    """A file of lines, or standard input, perhaps gzipped; shows how far it is on a terminal.

    Raises SettingsError (from ``lines``) where it cannot be opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "standard input" if path == "-" else path
        self.cut = False
        """Whether a gzip file ends before its end."""

    def lines(self) -> Iterator[bytes]:
        """Each with its line end; one of more than LONGEST_LINE comes in pieces."""
        try:
            raw: IO[bytes] = (
                sys.stdin.buffer if self.path == "-" else open(self.path, "rb")  # noqa: SIM115, PTH123
            )
        except OSError as error:
            raise SettingsError(f"{self.name!r}: {error.strerror}") from None
        bar = _Bar(raw)
        try:
            buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast("Any", raw))
            packed = buffered.peek(2)[:2] == _GZIP
            stream: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=buffered)) if packed else buffered
            yield from self._read(stream, bar)
        except OSError as error:
            raise SettingsError(f"{self.name!r}: {error.strerror or error}") from None
        finally:
            bar.end()
            if self.path != "-":
                raw.close()

    def _read(self, stream: IO[bytes], bar: _Bar) -> Iterator[bytes]:
        number = 0
        while True:
            try:
                line = stream.readline(LONGEST_LINE)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                self.cut = True
                return
            if not line:
                return
            number += 1
            if not number % EVERY:
                bar.show(number)
            yield line


class _Bar:
    """On standard error, if that is a terminal. By octets where the size is known, else by lines."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._on = sys.stderr.isatty()
        self._size = 0
        self._shown = False
        if self._on and raw.seekable():
            here = raw.tell()
            self._size = raw.seek(0, io.SEEK_END)
            raw.seek(here)

    def show(self, lines: int) -> None:
        if not self._on:
            return
        done = f"{lines:,} lines"
        if self._size:
            share = min(1.0, self._raw.tell() / self._size)
            full = int(share * WIDTH)
            done = f"[{'#' * full}{'.' * (WIDTH - full)}] {share:4.0%}  {done}"
        print(f"\r{done}\x1b[K", end="", file=sys.stderr, flush=True)
        self._shown = True

    def end(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Log:
    """The access log at ``path`` ("-": standard input). Iterate once; then the counts hold."""

    def __init__(self, path: str) -> None:
        self.source = Source(path)
        self.lines = 0
        """Lines that are not empty."""
        self.unread = 0
        self.first_unread: tuple[int, str] | None = None
        self.masked = 0
        self.sampled = 0
        """Lines that stand for more than one request each."""
        self._second = ""
        self._epoch = 0.0

    def __iter__(self) -> Iterator[Seen]:
        number, whole = 0, True
        for text in self.source.lines():
            begins, whole = whole, text.endswith(b"\n")
            if not begins:  # the rest of a line that was too long
                continue
            number += 1
            if text.isspace():
                continue
            self.lines += 1
            try:
                if not whole and len(text) >= LONGEST_LINE:
                    raise ValueError(f"longer than {LONGEST_LINE} octets")  # noqa: TRY301
                logged = self._logged(orjson.loads(text))
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                self._bad(number, error)
                continue
            yield logged

    def notes(self) -> list[str]:
        """What a reader of the result must know about the log."""
        notes = []
        if self.first_unread is not None:
            number, why = self.first_unread
            notes.append(f"{self.unread:,} of {self.lines:,} lines cannot be read; line {number}: {why}")
        if self.source.cut:
            notes.append(f"{self.source.name}: the gzip file is broken off or damaged; read up to there")
        if self.masked:
            notes.append(
                f"{self.masked:,} lines have masked values ({MASK}): URLs that differ only there count as one"
            )
        if self.sampled:
            notes.append(f"{self.sampled:,} lines are a sample of the traffic (--access-log-sample)")
        return notes

    def to_json(self) -> dict[str, Any]:
        first = self.first_unread
        return {
            "lines": self.lines,
            "unread": self.unread,
            "first_unread": None if first is None else {"line": first[0], "why": first[1]},
            "broken_off": self.source.cut,
            "masked": self.masked,
            "sampled": self.sampled,
        }

    def _bad(self, number: int, error: Exception) -> None:
        self.unread += 1
        if self.first_unread is None:
            why = "not JSON" if isinstance(error, orjson.JSONDecodeError) else _printable(str(error))
            self.first_unread = (number, why)

    def _logged(self, record: Any) -> Seen:
        if not isinstance(record, dict):
            raise TypeError("not a JSON object")
        get = record.get
        method, host, target = get("method"), get("host"), get("target")
        if not (isinstance(method, str) and isinstance(host, str) and isinstance(target, str)):
            raise TypeError("expected method, host and target as text")
        if not method or not target:
            raise ValueError("expected a method and a target")
        status, size = get("status"), get("bytes", 0)
        if not isinstance(status, int) or not isinstance(size, int):
            raise TypeError("expected status and bytes as whole numbers")
        ttl = get("ttl")
        logged = Seen(
            self._time(get("time")) - float(get("seconds") or 0.0),
            method, host.lower(), target, status, size, str(get("rule") or ""), str(get("cache") or ""),
            str(get("reason") or ""), str(get("tier") or ""), float(get("age") or 0.0),
            None if ttl is None else float(ttl), float(get("origin_seconds") or 0.0),
            get("collapsed") is True, get("stored") is True,
        )  # fmt: skip
        self.masked += _MASKED in target
        self.sampled += "sample" in record
        return logged

    def _time(self, text: Any) -> float:
        """RFC 3339; the date is worked out once a second."""
        if not isinstance(text, str) or len(text) < 20:
            raise ValueError("expected time as 2026-01-01T00:00:00.000Z")
        if text[-1] != "Z" or text[19] not in ".Z":
            when = datetime.fromisoformat(text)
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        second = text[:19]
        if second != self._second:
            self._epoch = datetime.fromisoformat(f"{second}+00:00").timestamp()
            self._second = second
        return self._epoch + float(f"0{text[19:-1]}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
