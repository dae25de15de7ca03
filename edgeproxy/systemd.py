"""What systemd gives a service and wants to hear from it: sockets (sd_listen_fds(3)), news (sd_notify(3)).

Rules of this file:

- The two protocols are some lines each and stable: variables, descriptors from 3 on, datagrams. Where the
  variables are missing, or meant for another process, nothing happens.
- Of the sockets, one named ``admin`` (FileDescriptorName=) is the admin port, the other one is where clients
  connect. Without names the first is the clients' and the second the admin port. Anything else is refused.
- News never fail and never wait: a manager that does not read gets none.
- Only the process that systemd started speaks; workers are not given these variables (``without``).
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeproxy.settings import Address, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.clock import Clock
    from edgeproxy.settings import Settings

FIRST = 3
"""The first descriptor that is handed over (SD_LISTEN_FDS_START)."""
ADMIN = "admin"
VARIABLES = frozenset({
    "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "NOTIFY_SOCKET", "WATCHDOG_PID",
    "WATCHDOG_USEC",
})  # fmt: skip


def without(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that systemd did not start."""
    return {name: value for name, value in environ.items() if name not in VARIABLES}


# -- sockets ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sockets:
    """What was handed over. None: bind it."""

    listen: socket.socket | None = None
    admin: socket.socket | None = None

    def told(self, settings: Settings) -> Settings:
        """The settings, with the addresses that these sockets really have."""
        if self.listen is not None:
            settings = replace(settings, listen=_address(self.listen))
        if self.admin is not None:
            settings = replace(settings, admin=_address(self.admin))
        return settings

    def close(self) -> None:
        for each in (self.listen, self.admin):
            if each is not None:
                each.close()


def sockets(environ: Mapping[str, str], first: int = FIRST) -> Sockets:
    """The sockets that were handed to this process. Raises SettingsError. The descriptors are ours then."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return Sockets()
    told = environ.get("LISTEN_FDS", "")
    count = int(told) if told.isdecimal() else 0
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    handed = [socket.socket(fileno=fd) for fd in range(first, first + count)]
    try:
        return _sorted(list(zip(names, handed, strict=False)))
    except SettingsError:
        for each in handed:
            each.close()
        raise


def _sorted(handed: list[tuple[str, socket.socket]]) -> Sockets:
    for _, each in handed:
        if each.type != socket.SOCK_STREAM or each.family not in (socket.AF_INET, socket.AF_INET6):
            raise SettingsError("LISTEN_FDS: expected TCP sockets (ListenStream=PORT or ADDRESS:PORT)")
        each.setblocking(False)  # noqa: FBT003
        os.set_inheritable(each.fileno(), False)  # noqa: FBT003
    admin = [each for name, each in handed if name == ADMIN]
    others = [each for name, each in handed if name != ADMIN]
    if not admin and len(others) == 2:
        admin = [others.pop()]
    if len(admin) > 1 or len(others) > 1:
        raise SettingsError(
            f"LISTEN_FDS: {len(handed)} sockets; expected one for clients and one named admin"
        )
    return Sockets(next(iter(others), None), next(iter(admin), None))


def _address(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address(str(host), int(port))


# -- news ------------------------------------------------------------------------------------------------


class Manager:
    """Whoever started us, if it wants to hear. The clock's ``monotonic`` is CLOCK_MONOTONIC on Linux."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._clock = clock
        path = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if path[:1] in ("/", "@"):
            self._to = "\0" + path[1:] if path.startswith("@") else path
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)  # noqa: FBT003
        told = environ.get("WATCHDOG_USEC", "")
        meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(told) / 1e6 if told.isdecimal() and meant and self._socket is not None else 0.0
        """Seconds within which it wants to hear that we live; 0: it does not."""
        self._ready = False

    def ready(self, status: str) -> None:
        """It serves."""
        self._ready = True
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        self._tell(f"STATUS={status}")

    def reloading(self, status: str) -> None:
        if self._ready:  # until then it is starting, whatever else it does
            self._tell(
                "RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}", f"STATUS={status}"
            )

    def reloaded(self, status: str) -> None:
        if self._ready:
            self._tell("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=draining")

    async def keep_alive(self) -> None:
        """Say that our loop turns, twice as often as is asked for."""
        while self.watchdog:
            self._tell("WATCHDOG=1")
            await self._clock.sleep(self.watchdog / 2)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            text = "\n".join(" ".join(line.split()) for line in lines)
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode(), self._to)
