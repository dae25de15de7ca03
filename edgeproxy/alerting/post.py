"""Hands a message to a receiver, in a thread of its own.

Rules of this file:

- A receiver that hangs holds its one thread and nobody else: the threads are not those that requests use, and
  the process does not wait for them at its end.
- ``console:`` and ``file:PATH`` are ours, a line of JSON for each notice; everything else is Apprise's, an
  extra. What Apprise does not know, and what is set without Apprise, is an error at the start.
- A URL is a secret: neither it nor a piece of it is in a log line, an error or what is told of a failure.
  Apprise and what it sends with write to our log no more.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from edgeproxy.alerting.plan import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import apprise

    from edgeproxy.alerting.message import Message
    from edgeproxy.alerting.plan import Plan, Receiver

_TALKATIVE = ("apprise", "urllib3", "requests_oauthlib", "oauthlib")
_PIECES = re.compile(r"[^/?&=:@+,;#]{4,}")
LONGEST = 200


@dataclass(frozen=True, slots=True)
class Said:
    """What came of it. ``why``: one line, "" where it was taken."""

    ok: bool
    why: str = ""


class Way(Protocol):
    """One URL's. ``deliver`` blocks."""

    def deliver(self, message: Message) -> Said: ...


class Post:
    """All ways of one receiver. Of several the message is taken when all took it."""

    def __init__(self, receiver: Receiver, ways: Sequence[Way]) -> None:
        self.name = receiver.name
        self.kinds = receiver.kinds
        self._ways = ways
        self.busy = False

    def send(self, message: Message) -> asyncio.Future[Said]:
        """Done when the receiver has said something, however long that takes. One at a time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Said] = loop.create_future()
        self.busy = True

        def work() -> None:
            said = [way.deliver(message) for way in self._ways]
            whole = next((each for each in said if not each.ok), Said(ok=True))
            try:
                loop.call_soon_threadsafe(done, whole)
            except RuntimeError:  # the loop has ended meanwhile
                return

        def done(said: Said) -> None:
            self.busy = False
            if not future.done():
                future.set_result(said)

        threading.Thread(target=work, name=f"alerts to {self.name}", daemon=True).start()
        return future


def posts(plan: Plan) -> dict[str, Post]:
    """One for each receiver. Raises PlanError."""
    return {
        receiver.name: Post(receiver, [_way(receiver, url) for url in receiver.urls])
        for receiver in plan.receivers
    }


def _way(receiver: Receiver, url: str) -> Way:
    scheme, _, rest = url.partition(":")
    if scheme == "console":
        return Console()
    if scheme == "file":
        path = unquote(rest.removeprefix("//"))
        if not path:
            raise PlanError(f"receiver {receiver.name}: expected file:PATH")
        return Lines(path)
    return _by_apprise(receiver, url)


class Console:
    """Standard error, where the log is."""

    def deliver(self, message: Message) -> Said:
        return _written(lambda octets: sys.stderr.write(octets.decode()), message)


class Lines:
    """Appended to a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def deliver(self, message: Message) -> Said:
        def append(octets: bytes) -> None:
            with open(self._path, "ab") as file:  # noqa: PTH123 - a path as it was given
                file.write(octets)

        return _written(append, message)


def _written(write: Callable[[bytes], object], message: Message) -> Said:
    try:
        write(b"".join(line + b"\n" for line in message.lines))
    except OSError as error:
        return Said(ok=False, why=error.strerror or type(error).__name__)
    return Said(ok=True)


# -- Apprise ---------------------------------------------------------------------------------------------


def _by_apprise(receiver: Receiver, url: str) -> Way:
    scheme = url.partition(":")[0][:20]
    try:
        import apprise  # noqa: PLC0415 - an extra, and dear to import
    except ImportError:
        raise PlanError(
            f"receiver {receiver.name} ({scheme}): Apprise is not installed here: "
            "pip install 'edgeproxy[alerts]'"
        ) from None
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        if not any(handler is _WHY for handler in logger.handlers):
            logger.addHandler(_WHY)
    asset = apprise.AppriseAsset(
        app_id="edgeproxy", app_desc="edgeproxy alerts", async_mode=False, secure_logging=True
    )
    try:
        made = apprise.Apprise.instantiate(url, asset=asset)
    except Exception:  # noqa: BLE001 - a plugin's; what it says may hold the URL
        made = None
    _WHY.taken()
    if made is None:
        raise PlanError(
            f"receiver {receiver.name}: {scheme}: is no URL that Apprise can use; "
            "see https://appriseit.com/services/"
        )
    return ByApprise(made, url)


class _Why(logging.Handler):
    """Keeps what was said last in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self._said.last = record.getMessage()

    def taken(self) -> str:
        said: str = getattr(self._said, "last", "")
        self._said.last = ""
        return said


_WHY = _Why()


class ByApprise:
    def __init__(self, made: apprise.NotifyBase, url: str) -> None:
        self._made = made
        # What follows the scheme may be a secret, all of it.
        pieces = {unquote(piece) for piece in _PIECES.findall(url.partition(":")[2])}
        self._secrets = sorted(pieces | set(_PIECES.findall(url.partition(":")[2])), key=len, reverse=True)

    def deliver(self, message: Message) -> Said:
        _WHY.taken()
        try:
            ok = self._made.notify(title=message.title, body=message.body, notify_type=message.kind)
        except Exception as error:  # noqa: BLE001 - a plugin's: whatever it is, the others are told
            return Said(ok=False, why=type(error).__name__)
        return Said(ok=True) if ok else Said(ok=False, why=self._shown(_WHY.taken()))

    def _shown(self, told: str) -> str:
        for secret in self._secrets:
            told = told.replace(secret, "***")
        line = " ".join(told.split())[:LONGEST]
        return line or "not taken, and not said why"
