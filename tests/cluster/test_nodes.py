"""Purges and writes as clients and operators of several workers and nodes see them: real processes."""

from __future__ import annotations

import http.client
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fixtures import a_redis
from tests.support.origins import edgeproxy_process
from tests.support.servers import redis_server
from tests.support.threads import threaded_origin
from tests.test_workers import pids, pinned, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.origins import Answer, EdgeProcess
    from tests.support.servers import Server
    from tests.support.threads import ThreadedOrigin

pytestmark = [pytest.mark.long, pytest.mark.timeout(180), pytest.mark.xdist_group("nodes")]

ROUNDS = 100
"""Of E3, with an answer from each of the four workers."""


@pytest.fixture(scope="module")
def origin() -> Iterator[ThreadedOrigin]:
    with threaded_origin() as origin:
        yield origin


redis = pytest.fixture(scope="module")(a_redis)


@pytest.fixture(scope="module")
def nodes(
    origin: ThreadedOrigin, redis: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[EdgeProcess]]:
    """Two nodes of two workers on one Redis."""

    def node(name: str) -> Any:
        directory: Path = tmp_path_factory.mktemp(name)
        flags = ["--workers", "2", "--node", name, "--purge-wait", "5s", "--store-budget", "1s"]
        return edgeproxy_process(origin.url, directory, store=redis.url, arguments=flags)

    with node("one") as one, node("other") as other:
        yield [one, other]


def receipt(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer.body)
    return told


def purge(edge: EdgeProcess, **what: object) -> Answer:
    return edge.admin("POST", "/api/cache/purge", json.dumps(what).encode())


def test_no_worker_of_any_node_answers_with_what_was_purged(
    origin: ThreadedOrigin, nodes: list[EdgeProcess]
) -> None:
    # E3, on two nodes: a new version, a purge, one request to each worker. How long that takes is for
    # tests/bench/receipts.py, where nothing else runs.
    path = "/e3"
    with pinned(nodes[0]) as here, pinned(nodes[1]) as there:
        for number in range(ROUNDS):
            version = origin.ledger.bump(path)
            answer = purge(nodes[number % 2], url=path)
            assert answer.status == 200, answer.body
            assert [node["said"] for node in receipt(answer)["nodes"]] == ["ok", "ok"]
            for pin in (*here, *there):
                assert pin.get(path).body == origin.ledger.stamp(path, version), f"round {number}"
        assert origin.ledger.count(path) == 2 * ROUNDS, "each version once for each of the two hosts"


def test_a_write_is_purged_on_all_nodes_before_its_writer_is_answered(
    origin: ThreadedOrigin, nodes: list[EdgeProcess]
) -> None:
    # E7
    ledger = origin.ledger
    connections = [http.client.HTTPConnection("127.0.0.1", node.port, timeout=20) for node in nodes]

    def get(at: int, path: str) -> tuple[str, bytes]:
        connections[at].request("GET", path, headers={"Host": "e7.example"})
        reply = connections[at].getresponse()
        return reply.getheader("X-Cache-Status") or "", reply.read()

    def write(method: str, status: int, *fields: tuple[str, str]) -> None:
        ledger.reply(
            "/e7", status=status, headers=[("Cache-Control", "no-store"), *fields], body=b"", times=1
        )
        answer = nodes[0].request(method, "/e7", {"Host": "e7.example"}, b"x")
        assert answer.status == status

    def fill() -> None:
        for path in ("/e7", "/e7/beside"):
            for at in (0, 1):
                get(at, path)
                assert get(at, path)[0] == "HIT"

    for method, status in (("PUT", 200), ("POST", 303), ("PATCH", 204), ("DELETE", 200)):
        fill()
        for path in ("/e7", "/e7/beside"):
            ledger.bump(path)
        write(method, status, ("Location", "/e7/beside"))
        for path in ("/e7", "/e7/beside"):
            for at in (1, 0):
                assert get(at, path)[1] == ledger.stamp(path, ledger.version(path)), (method, path)
    for status in (404, 500):
        fill()
        write("PUT", status)
        assert get(1, "/e7")[0] == "HIT", f"{status} changes nothing"
    for connection in connections:
        connection.close()


def test_a_node_that_hangs_is_named_and_one_that_ended_is_not_waited_for(
    origin: ThreadedOrigin, redis: Server, nodes: list[EdgeProcess], tmp_path: Path
) -> None:
    # E4: the purge is no success until the third node has answered, or ended.
    flags = ["--node", "third", "--l1-lease", "30s"]
    with edgeproxy_process(origin.url, tmp_path, store=redis.url, arguments=flags, check_log=False) as third:
        assert purge(nodes[0], all=True).status == 200
        third.process.send_signal(signal.SIGSTOP)  # it hears nothing
        answer = purge(nodes[0], url="/e4")
        assert answer.status == 504
        said = {node["node"]: node["said"] for node in receipt(answer)["nodes"]}
        assert said == {"one": "ok", "other": "ok", "third": "no answer"}
        third.process.send_signal(signal.SIGCONT)
        until(lambda: purge(nodes[0], url="/e4").status == 200, "the third to answer again")
        assert third.terminate() == 0
    answer = purge(nodes[0], url="/e4")
    assert answer.status == 200
    assert [node["node"] for node in receipt(answer)["nodes"]] == ["one", "other"]
    assert len(pids(nodes[0])) == 2


def test_without_redis_a_purge_says_so_and_is_told_later(origin: ThreadedOrigin, tmp_path: Path) -> None:
    # E5: one node, its Redis gone and back with nothing forgotten.
    with redis_server() as server:
        assert server is not None
        with edgeproxy_process(origin.url, tmp_path, store=server.url) as edge:
            edge.get("/e5", host="e5.example")
            server.pause()
            origin.ledger.bump("/e5")
            answer = purge(edge, url="/e5")
            assert answer.status == 503
            assert receipt(answer)["layers"]["l2"].startswith("not told yet")
            again = edge.get("/e5", host="e5.example")
            assert again.body == origin.ledger.stamp("/e5", 2)
            server.resume()
            until(lambda: purge(edge, url="/other").status == 200, "the log to be followed again")
            assert edge.get("/e5", host="e5.example").body == origin.ledger.stamp("/e5", 2)
