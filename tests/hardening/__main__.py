"""``python -m tests.hardening``: what nginx, HAProxy and Varnish make of the requests that the edge refuses.

Each that is installed is started with its usual settings before an origin that takes all; a case counts as
taken where its first answer is no error. ``--list`` names each item. By hand: a comparison is no test.
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from tests.bench.processes import Processes
from tests.bench.servers import Setup, installed, start
from tests.hardening.cases import requests

if TYPE_CHECKING:
    from tests.hardening.cases import RequestCase

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\nConnection: close\r\n\r\nok"
PATIENCE = 1.0
"""Seconds to wait for an answer; none is not taken."""


def easy_origin() -> int:
    """Its port. Whatever comes is answered once there is an empty line."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            came = b""
            try:
                while b"\r\n\r\n" not in came and b"\n\n" not in came:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    came += piece
                connection.sendall(ANSWER)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                return

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def status(port: int, case: RequestCase) -> int:
    """Of the first answer; 0 where there is none."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(PATIENCE)
        came = b""
        try:
            client.sendall(case.sends)
            while b"\n" not in came and (piece := client.recv(4096)):
                came += piece
        except OSError:
            return 0
    words = came.split(b" ", 2)
    return int(words[1][:3]) if len(words) > 1 and words[1][:3].isdigit() else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hardening", description=__doc__)
    parser.add_argument("--list", action="store_true", help="every item that is taken")
    args = parser.parse_args()
    cases = {
        name: [c for c in items if c.statuses - {413} and c.asked is None]
        for name, items in requests().items()
    }
    say = print
    origin = cast("Any", SimpleNamespace(port=easy_origin()))
    names = ["edgeproxy", *installed(["nginx", "haproxy", "varnish"], say)]
    taken: dict[str, dict[str, list[str]]] = {}
    with Processes() as processes:
        for server in names:
            running = start(processes, server, origin, Setup())
            taken[server] = {
                name: [case.item for case in items if 100 < status(running.port, case) < 400]
                for name, items in cases.items()
            }
    say("| refused by edgeproxy | cases | " + " | ".join(names) + " |")
    say("| --- |" + " --- |" * (len(names) + 1))
    for name, items in cases.items():
        if any(taken[server][name] for server in names):
            say(f"| {name} | {len(items)} | {' | '.join(str(len(taken[s][name])) for s in names)} |")
            if args.list:
                for server in names:
                    say(f"    {server}: {taken[server][name]!r}")
    total = sum(map(len, cases.values()))
    say(f"| all | {total} | {' | '.join(str(sum(map(len, taken[s].values()))) for s in names)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
