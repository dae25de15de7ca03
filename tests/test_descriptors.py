"""C8: a process that may open 128 files, and 300 clients that come and stay."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
from pathlib import Path

import pytest

from edgeproxy.clock import Clock
from tests.support.origins import EdgeProcess, edgeproxy_process
from tests.support.threads import threaded_origin

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("descriptors")]

PAUSE = threading.Event()
"""Never set: for a process that is to be left alone for a while."""
PATIENCE = 30.0


def used(edge: EdgeProcess) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{edge.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def asked(connection: http.client.HTTPConnection, target: str) -> tuple[int, bytes]:
    connection.request("GET", target)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="asks /proc how much processor time was used"
)
def test_more_clients_than_descriptors(tmp_path: Path) -> None:
    with (
        threaded_origin() as origin,
        edgeproxy_process(origin.url, tmp_path, store=None, descriptors=128) as edge,
        contextlib.ExitStack() as stack,
    ):
        kept = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=PATIENCE)
        stack.callback(kept.close)
        assert asked(kept, "/before")[0] == 200
        crowd = contextlib.ExitStack()
        stack.callback(crowd.close)
        for _ in range(300):
            # Some are taken, some closed at once, some left to the kernel: none may hurt the others.
            client = crowd.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", edge.port))
        for number in range(5):
            # What needs the origin, the store and the admin port still works.
            status, body = asked(kept, f"/during/{number}")
            assert (status, body) == (200, origin.ledger.stamp(f"/during/{number}", 1))
            assert edge.admin("GET", "/readyz").status == 200
        clock = Clock()
        before, began = used(edge), clock.monotonic()
        PAUSE.wait(0.5)
        assert used(edge) - before < (clock.monotonic() - began) / 2, "it turns in circles"
        assert len(os.listdir(f"/proc/{edge.process.pid}/fd")) < 128  # noqa: PTH208
        crowd.close()
        deadline = clock.monotonic() + PATIENCE
        while True:
            fresh = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=PATIENCE)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(fresh):
                assert asked(fresh, "/after")[0] == 200
                break
            assert clock.monotonic() < deadline, "nobody is let in any more"
            PAUSE.wait(0.05)
        assert "Too many open files" not in edge.log()
