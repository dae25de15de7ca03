"""The catalogue against what real workers tell, and against Prometheus' own ideas of good names."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.observe import merge
from edgeproxy.observe.catalogue import CATALOGUE, Join, Kind
from edgeproxy.observe.catalogue_parts import EVERY, NODE, PARTS, PROCESS
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin
from tests.support.servers import memcached_server, redis_server

if TYPE_CHECKING:
    from pathlib import Path

PROMTOOL = shutil.which("promtool")


async def scrape(**flags: Any) -> bytes:
    async with LedgerOrigin() as origin, running_edge(origin.url, **flags) as edge:
        for target in ("/a", "/a", "/b?c"):
            await edge.get(target)
        await edge.settle()
        return await edge.worker.operator.metrics()


def families(told: bytes) -> dict[str, Any]:
    found = text_string_to_metric_families(told.decode())
    return {f"{f.name}_total" if f.type == "counter" else f.name: f for f in found}


@pytest.mark.parametrize("store", ["memory", "lmdb", "redis", "memcached"])
async def test_whatever_a_worker_tells_stands_in_the_catalogue(tmp_path: Path, store: str) -> None:
    if store in ("memory", "lmdb"):
        where = "memory:" if store == "memory" else f"lmdb:{tmp_path / 'store'}"
        told = families(await scrape(store=where, access_log=tmp_path / "log"))
    else:
        with (redis_server if store == "redis" else memcached_server)() as server:
            if server is None:
                pytest.skip(f"there is no {store} server here")
            told = families(await scrape(store=server.url, access_log=tmp_path / "log"))
    assert [name for name in told if name not in EVERY] == []  # a new key belongs into catalogue_parts.py
    for name, family in told.items():
        described = EVERY[name]
        assert (family.type, family.documentation) == (described.kind, described.help), name
    missing = set(CATALOGUE) | set(PROCESS)
    assert missing <= told.keys()


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool on the PATH")
async def test_prometheus_finds_nothing_wrong_with_a_scrape(tmp_path: Path) -> None:
    told = await scrape(store=f"lmdb:{tmp_path / 'store'}", access_log=tmp_path / "log")
    assert PROMTOOL is not None
    command = [PROMTOOL, "check", "metrics"]
    ran = subprocess.run(command, input=told, capture_output=True, timeout=30, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_names_kinds_and_helps_are_conventional() -> None:
    for name, described in EVERY.items():
        assert name == described.name
        assert re.fullmatch(r"edgeproxy(_[a-z0-9]+)+", name)
        assert name.endswith("_total") == (described.kind is Kind.COUNTER), name
        assert not re.search(r"_(ms|milliseconds|kb|mib|percent|share|counter|gauge)(_|$)", name), name
        assert not name.endswith(("_count", "_sum", "_bucket")), name
        assert described.help.endswith("."), name
        assert "\n" not in described.help
        assert described.kind is Kind.GAUGE or described.join is Join.SUM, name
    assert len(EVERY) == len(CATALOGUE) + len(PARTS) + len(NODE) + len(PROCESS)  # no name twice


def test_several_workers_are_joined_as_the_catalogue_says() -> None:
    def told(value: float) -> merge.Exposition:
        names = ("edgeproxy_overload_admitted_ratio", "edgeproxy_store_epoch", "edgeproxy_requests_in_flight")
        return {name: merge.Family("", "gauge", {name: value}) for name in names}

    total: merge.Exposition = {}
    for value in (0.5, 1.0, 0.25):
        merge.add(total, told(value))
    joined = {name: family.samples[name] for name, family in total.items()}
    assert joined == {
        "edgeproxy_overload_admitted_ratio": 0.25,
        "edgeproxy_store_epoch": 1.0,
        "edgeproxy_requests_in_flight": 1.75,
    }
