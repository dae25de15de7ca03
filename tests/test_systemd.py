"""systemd's two protocols, over real sockets: what is handed over, what is told, and when nobody listens."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from edgeproxy import settings
from edgeproxy.clock import Clock
from edgeproxy.settings import Address, SettingsError
from edgeproxy.systemd import Manager, sockets, without
from tests.support.driven import DrivenClock
from tests.support.origins import ROOT, free_port, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIRST = 200
"""Where the tests put descriptors, in place of 3."""
PID = str(os.getpid())


HAND_OVER = """
import os, sys
for number, fd in enumerate(sys.argv[1:3], 3):
    os.dup2(int(fd), number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Become another program, with the sockets where systemd puts them."""


def tcp(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    made = socket.socket(family)
    made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    return made


def handed(*given: socket.socket) -> None:
    """At FIRST and the numbers after it."""
    for number, each in enumerate(given):
        os.dup2(each.fileno(), FIRST + number, inheritable=True)
        each.close()


@pytest.mark.parametrize(
    ("names", "count", "listen", "admin"),
    [
        (None, 1, 0, None),
        ("edgeproxy.socket", 1, 0, None),
        ("admin", 1, None, 0),
        (None, 2, 0, 1),
        ("edgeproxy.socket:edgeproxy.socket", 2, 0, 1),
        ("listen:admin", 2, 0, 1),
        ("admin:listen", 2, 1, 0),
    ],
)
def test_sockets_are_taken(names: str | None, count: int, listen: int | None, admin: int | None) -> None:
    made = [tcp() for _ in range(count)]
    addresses = [Address(*each.getsockname()) for each in made]
    handed(*made)
    environ = {"LISTEN_PID": PID, "LISTEN_FDS": str(count)}
    if names is not None:
        environ["LISTEN_FDNAMES"] = names
    given = sockets(environ, FIRST)
    try:
        flags = {"origin": "http://127.0.0.1:9", "listen": "127.0.0.1:1", "admin": "127.0.0.1:2"}
        told = given.told(settings.load(flags, {}))
        assert told.listen == (Address("127.0.0.1", 1) if listen is None else addresses[listen])
        assert told.admin == (Address("127.0.0.1", 2) if admin is None else addresses[admin])
        for each in (given.listen, given.admin):
            if each is not None:
                assert not each.getblocking()
                assert fcntl.fcntl(each, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    finally:
        given.close()


@pytest.mark.parametrize("environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": PID}])
def test_what_is_not_for_us_is_left(environ: dict[str, str]) -> None:
    made = tcp()
    handed(made)
    given = sockets(environ, FIRST)
    assert (given.listen, given.admin) == (None, None)
    os.close(FIRST)  # it is still there


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        ("a:b:c", ["tcp"] * 3),
        ("admin:admin", ["tcp"] * 2),
        ("a", ["unix"]),
        ("a", ["udp"]),
    ],
)
def test_what_cannot_be_meant_is_refused(names: str, kinds: list[str]) -> None:
    make: dict[str, Callable[[], socket.socket]] = {
        "tcp": tcp,
        "unix": lambda: socket.socket(socket.AF_UNIX),
        "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    }
    handed(*(make[kind]() for kind in kinds))
    with pytest.raises(SettingsError, match="LISTEN_FDS: "):
        sockets({"LISTEN_PID": PID, "LISTEN_FDS": str(len(kinds)), "LISTEN_FDNAMES": names}, FIRST)
    for number in range(len(kinds)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(FIRST + number)


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A manager's socket, and where it is."""
    path = str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(path)
        made.settimeout(60)
        yield path, made


def read(inbox: socket.socket) -> list[str]:
    return inbox.recv(4096).decode().split("\n")


def test_news(inbox: tuple[str, socket.socket]) -> None:
    path, mail = inbox
    clock = DrivenClock()
    manager = Manager({"NOTIFY_SOCKET": path}, clock)
    manager.reloading("too early")
    manager.reloaded("too early")
    manager.ready("serving\non two lines")
    assert read(mail) == ["READY=1", "STATUS=serving on two lines"]
    manager.reloading("rules")
    assert read(mail) == ["RELOADING=1", f"MONOTONIC_USEC={int(clock.monotonic() * 1e6)}", "STATUS=rules"]
    manager.reloaded("serving")
    assert read(mail) == ["READY=1", "STATUS=serving"]
    manager.status("2 of 3")
    manager.stopping()
    assert [read(mail), read(mail)] == [["STATUS=2 of 3"], ["STOPPING=1", "STATUS=draining"]]
    manager.close()
    manager.ready("to nobody")


def test_an_abstract_socket_and_one_that_nobody_reads() -> None:
    name = f"edgeproxy-test-{PID}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mail:
        mail.bind(f"\0{name}")
        mail.settimeout(60)
        manager = Manager({"NOTIFY_SOCKET": f"@{name}"}, Clock())
        for number in range(3000):  # more than a socket holds
            manager.status(str(number))
        assert read(mail) == ["STATUS=0"]
    manager.status("gone")
    manager.close()
    Manager({"NOTIFY_SOCKET": "vsock:2:1"}, Clock()).ready("no")


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": PID}, 3.0),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "x"}, 0.0),
        ({}, 0.0),
    ],
)
def test_whose_watchdog_it_is(inbox: tuple[str, socket.socket], more: dict[str, str], seconds: float) -> None:
    manager = Manager({"NOTIFY_SOCKET": inbox[0], **more}, Clock())
    assert manager.watchdog == seconds
    manager.close()
    assert Manager(more, Clock()).watchdog == 0


def test_workers_are_told_nothing() -> None:
    environ = {
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "HOME": "/h",
    }
    assert without(environ) == {"HOME": "/h"}


@pytest.mark.long
@pytest.mark.timeout(150)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_service(inbox: tuple[str, socket.socket], tmp_path: Path, workers: int) -> None:
    """As systemd runs it: both sockets handed over, ready told, the watchdog fed, the port never closed."""
    path, mail = inbox
    with ExitStack() as stack:
        listen, admin = stack.enter_context(tcp()), stack.enter_context(tcp())
        for each in (listen, admin):
            each.listen(16)
        serve = [
            sys.executable, "-m", "edgeproxy", "serve", "--origin", f"http://127.0.0.1:{free_port()}",
            "--rules", "none", "--store", "memory:", "--cache-dir", str(tmp_path / "cache"),
            "--workers", str(workers), "--listen", "127.0.0.1:1", "--admin", "127.0.0.1:1",
            "--warm-start", "off", "--drain-grace", "0",
        ]  # fmt: skip
        environ = {
            **{n: v for n, v in settings.environment().items() if not n.startswith("EDGEPROXY_")},
            "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000", "LISTEN_FDS": "2",
        }  # fmt: skip
        log = stack.enter_context((tmp_path / "log").open("w+b"))
        fds = (listen.fileno(), admin.fileno())
        command = [sys.executable, "-ISc", HAND_OVER, *map(str, fds), *serve]
        process = subprocess.Popen(command, cwd=ROOT, env=environ, pass_fds=fds, stdout=log, stderr=log)
        try:
            told = [read(mail)]
            while "READY=1" not in told[-1]:
                told.append(read(mail))
            port, admin_port = listen.getsockname()[1], admin.getsockname()[1]
            assert any(f"serving on 127.0.0.1:{port}" in line for line in told[-1])
            mail.settimeout(60)
            while read(mail) != ["WATCHDOG=1"]:
                pass
            assert request(port, "GET", "/x").status == 502  # there is no origin
            assert json.loads(request(admin_port, "GET", "/readyz").body)["status"] in ("ready", "degraded")
            process.send_signal(1)
            while not read(mail)[0].startswith("RELOADING"):
                pass
            while "READY=1" not in read(mail):
                pass
            process.terminate()
            while not read(mail)[0].startswith("STOPPING"):
                pass
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
        # Who comes now waits for the next start.
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
