"""The access log: one JSON line a request, batched, written by a thread of its own.

Rules of this file:

- A request never waits for the log and never fails by it. Lines are gathered on the loop (FLUSH_BYTES or
  FLUSH_SECONDS, whichever comes first) and handed to one writer thread; when the disk, the pipe or its reader
  cannot follow and MOST_PENDING octets wait, further lines are dropped and counted.
- A line is pure ASCII: what clients sent cannot put a control character, DEL, C1 or anything else into a
  terminal or a parser. orjson escapes below 0x20 only, so a line with more in it is written the slow way.
- Values of query parameters that usually hold secrets are masked.
- Several workers may write to one file or pipe: a file is opened to append, and they take turns, by a lock
  on a file of their own, so that a batch which a pipe takes in pieces stays in one piece. A worker that is
  killed loses the lock with its life.
- A file is opened anew by ``reopen()``
  (SIGHUP after a rotation); lines gathered before go to the old one. The thread starts with the first
  batch: after any fork.
- What the hit lane answers is written by a template (HitLine): a line is what ``write`` would have written,
  but for how a number is spelled.
- ``time`` is when the answer was out; the request came ``seconds`` before.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import random
import re
import select
import threading
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, final
from urllib.parse import unquote

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeproxy.clock import Clock, Timer
    from edgeproxy.observe.trace import Trace

FLUSH_SECONDS = 0.2
FLUSH_BYTES = 64 * 1024
MOST_PENDING = 8 * 1024 * 1024
MASKED = frozenset(
    ("access_token", "api_key", "apikey", "client_secret", "id_token", "jwt", "key", "passwd", "password",
     "refresh_token", "secret", "sig", "signature", "token", "x-amz-security-token", "x-amz-signature",
     "x-goog-signature")
)  # fmt: skip
"""Names of query parameters, in lower case, whose values are not logged."""
MASK = "***"

_LOG = logging.getLogger("edgeproxy.access_log")
_PARAMETER = re.compile(r"([?&;])([^=&;]*)=([^&;]*)")
_UNUSUAL = frozenset("%;[].+")
_REOPEN, _CLOSE = "reopen", "close"


@final
class HitLine:
    """The parts of a line that do not differ from hit to hit of one answer, in their order."""

    __slots__ = ("answer", "request", "rest")

    def __init__(self, request: bytes, answer: bytes, rest: bytes) -> None:
        self.request = request.decode("ascii", "replace")
        self.answer = answer.decode("ascii", "replace")
        self.rest = rest.decode("ascii", "replace")


class AccessLog:
    """``path`` None: standard output. ``sample``: the share of requests logged, 0 to 1. ``turns``: a file
    whose lock those take in turn who write to the same place.

    Raises OSError if the file cannot be opened, ValueError if the share is none.
    """

    def __init__(
        self,
        clock: Clock,
        path: Path | None = None,
        *,
        sample: float = 1.0,
        masked: frozenset[str] = MASKED,
        turns: Path | None = None,
    ) -> None:
        if not 0 <= sample <= 1:
            raise ValueError(f"the share of requests to log is between 0 and 1, not {sample:g}")
        self._clock = clock
        self._sample = sample
        self._masked = masked
        self._random = random.Random()  # noqa: S311 - which requests are logged is no secret
        self._lines: list[bytes] = []
        self._gathered = 0
        self._timer: Timer | None = None
        self._writer = _Writer(path, turns)
        self._dropped = 0
        self._second = -1
        self._stamp = ""

    def write(self, trace: Trace) -> None:
        """Log one finished request. Called on the loop; takes microseconds and never raises OSError."""
        if self._sample < 1 and self._random.random() >= self._sample:
            return
        self._gather(self._render(trace))

    def hit_line(self, trace: Trace) -> HitLine | None:
        """What lines like this hit's have alike, for ``write_hit``; None where they are to be written one by
        one."""
        try:
            parts = [orjson.dumps(part)[1:-1] for part in _constant(trace, self._masked)]
        except TypeError:  # as in ``_render``
            return None
        if self._sample < 1:
            parts[2] += b',"sample":' + orjson.dumps(self._sample)
        line = HitLine(*parts)
        return line if all(part.isascii() and b"\x7f" not in part for part in parts) else None

    def write_hit(
        self, line: HitLine, request_id: str, client: str, seconds: float, age: int, ttl: float
    ) -> None:
        """As ``write``, of one more hit of the line's. ``client`` is an address."""
        if self._sample < 1 and self._random.random() >= self._sample:
            return
        stamp = self._time()
        text = (
            f'{{"time":"{stamp}","request_id":"{request_id}","client":"{client}",{line.request},'
            f'"seconds":{seconds:.6f},{line.answer},"age":{age},"ttl":{ttl:.3f},{line.rest}}}\n'
        )
        self._gather(text.encode())

    def _gather(self, line: bytes) -> None:
        self._lines.append(line)
        self._gathered += len(line)
        if self._gathered >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = self._clock.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand what is gathered to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines, self._gathered = self._lines, [], 0
            if not self._writer.put(b"".join(lines), len(lines)):
                self._dropped += len(lines)

    def reopen(self) -> None:
        """Open the file anew, after a rotation. Keeps the old one if that fails."""
        self.flush()
        self._writer.reopen()

    def close(self, timeout: float = 2.0) -> None:
        """Write what is left, waiting ``timeout`` seconds at most. Nothing may be written after."""
        self.flush()
        self._writer.close(timeout)

    def stats(self) -> dict[str, int | float | str]:
        """For the metrics: lines written, lines lost (dropped, or refused by the disk), bytes waiting."""
        writer = self._writer
        return {
            "lines_total": writer.written,
            "lines_lost_total": self._dropped + writer.lost,
            "pending_bytes": self._gathered + writer.pending,
        }

    def _render(self, trace: Trace) -> bytes:
        request, answer, rest = _constant(trace, self._masked)
        record: dict[str, object] = {
            "time": self._time(),
            "request_id": trace.request_id,
            "client": trace.client,
            **request,
            "seconds": round(trace.seconds, 6),
            **answer,
            "age": trace.age,
            "ttl": None if trace.ttl is None else round(trace.ttl, 3),
            **rest,
        }
        if trace.purpose:
            record["purpose"] = trace.purpose
        if trace.closed:
            record["closed"] = trace.closed
        if self._sample < 1:
            record["sample"] = self._sample
        try:
            line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # a lone surrogate: text that was no UTF-8
            line = _ascii(record)
        if line.isascii() and b"\x7f" not in line:
            return line
        return _ascii(record)

    def _time(self) -> str:
        """RFC 3339, UTC, with milliseconds. The date is made once a second."""
        now = self._clock.now()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
        return f"{self._stamp}.{int((now - second) * 1000):03d}Z"


def _constant(trace: Trace, masked: frozenset[str]) -> tuple[dict[str, object], ...]:
    """The parts of a record that are the same for every hit on one answer under one target."""
    return (
        {
            "method": trace.method,
            "host": trace.host,
            "target": mask(trace.target, masked),
            "status": trace.status,
            "bytes": trace.bytes_out,
            "bytes_in": trace.bytes_in,
        },
        {"rule": trace.rule, "cache": trace.word, "reason": trace.reason, "tier": trace.tier},
        {
            "origin_seconds": round(trace.origin_seconds, 6),
            "queue_seconds": round(trace.queue_seconds, 6),
            "collapsed": trace.collapsed,
            "stored": trace.stored,
            "coding": trace.coding,
            "aborted": trace.aborted,
        },
    )


def _ascii(record: dict[str, object]) -> bytes:
    text = json.dumps(record, ensure_ascii=True, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f").encode("ascii") + b"\n"


def mask(target: str, names: frozenset[str] = MASKED) -> str:
    """The target with the values of the parameters ``names`` replaced.

    Names are compared without case and percent-encoding, and ``user[password]`` counts as ``password``.
    """
    path, mark, query = target.partition("?")
    if not mark or "=" not in query:
        return target
    if _UNUSUAL.isdisjoint(query) and names.isdisjoint(
        [parameter.partition("=")[0].lower() for parameter in query.split("&")]
    ):
        return target  # the common case, without a regular expression

    def replace(found: re.Match[str]) -> str:
        name = unquote(found[2], encoding="latin-1").strip("+ ").lower()
        if name in names or any(part in names for part in re.split(r"[\[\].]", name)):
            return f"{found[1]}{found[2]}={MASK}"
        return found[0]

    return path + _PARAMETER.sub(replace, mark + query)


class _Writer:
    """The thread and its file. ``written``, ``lost`` in lines; ``pending`` in octets."""

    def __init__(self, path: Path | None, turns: Path | None = None) -> None:
        self._turns = None if turns is None else _open(turns)
        self._path = path
        self._fd = 1 if path is None else _open(path)
        self._queue: SimpleQueue[tuple[bytes, int] | str] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._torn = False
        self._failing = False
        self.pending = 0
        self.written = 0
        self.lost = 0

    def put(self, batch: bytes, lines: int) -> bool:
        """False: too much is waiting, or the log is closed."""
        if self._closing.is_set() or self.pending + len(batch) > MOST_PENDING:
            return False
        with self._lock:
            self.pending += len(batch)
        self._send((batch, lines))
        return True

    def reopen(self) -> None:
        if self._path is not None and not self._closing.is_set():
            self._send(_REOPEN)

    def close(self, timeout: float) -> None:
        if self._thread is not None and not self._closing.is_set():
            self._send(_CLOSE)
            self._thread.join(timeout / 2)
            self._closing.set()  # whatever it waits for, it stops now
            self._thread.join(timeout / 2)
            if self._thread.is_alive():
                return  # inside a write that blocks: the descriptor is not ours to close
        self._closing.set()
        if self._turns is not None:
            os.close(self._turns)
            self._turns = None
        if self._path is not None and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _send(self, item: tuple[bytes, int] | str) -> None:
        self._queue.put(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is _CLOSE:
                return
            if isinstance(item, str):
                self._reopen()
                continue
            batch, lines = item
            try:
                with self._turn():
                    self._write(batch)
            except OSError as error:
                self.lost += lines
                if not self._failing:
                    self._failing = True
                    _LOG.warning("the access log cannot be written: %s; lines are lost until it can", error)
            else:
                self.written += lines
                if self._failing:
                    self._failing = False
                    _LOG.warning("the access log is written again; %d lines were lost", self.lost)
            with self._lock:
                self.pending -= len(batch)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Alone among those who take turns; at the end of all things without waiting any longer."""
        pause = 0.001
        while self._turns is not None:
            try:
                fcntl.flock(self._turns, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if self._closing.wait(pause):
                    break
                pause = min(0.05, pause * 2)
        try:
            yield
        finally:
            if self._turns is not None:
                fcntl.flock(self._turns, fcntl.LOCK_UN)

    def _write(self, batch: bytes) -> None:
        """All of it, or OSError. After a line that was cut off, the next one starts on a new line."""
        rest = memoryview(b"\n" + batch if self._torn else batch)
        while rest:
            try:
                count = os.write(self._fd, rest)
            except BlockingIOError:  # standard output may be a pipe that somebody made non-blocking
                self._wait()
                continue
            self._torn = rest[count - 1] != ord("\n") if count else self._torn
            rest = rest[count:]

    def _wait(self) -> None:
        if self._closing.is_set():
            raise BrokenPipeError("nobody reads it")
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(100)

    def _reopen(self) -> None:
        if self._path is None:
            return
        try:
            fd = _open(self._path)
        except OSError as error:
            _LOG.warning("the access log cannot be reopened: %s; the old file is written on", error)
            return
        old, self._fd, self._torn = self._fd, fd, False
        with contextlib.suppress(OSError):
            os.close(old)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
