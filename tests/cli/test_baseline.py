"""``edgeproxy baseline`` against the admin port of a real worker, and what counts as worse."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.__main__ import main
from edgeproxy.admin.api import make_admin
from edgeproxy.admin.auth import Auth
from edgeproxy.observe.baseline import Baseline, Recorded, breaches, decode, encode
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_aiohttp import AiohttpServer

USUAL = Recorded(requests=1000, p50=0.01, p75=0.02, p90=0.03, p95=0.04, p99=0.1, success=1.0, hit_ratio=0.9)


def baseline(**rules: Recorded) -> Baseline:
    return Baseline(1, 0.0, "5m", rules)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"p95": 0.08, "p99": 0.3, "success": 0.99, "hit_ratio": 0.63}, []),  # just so
        ({"p95": 0.081}, [("p95", "warning", 0.08)]),
        ({"p95": 0.121}, [("p95", "critical", 0.12)]),
        ({"p99": 0.301}, [("p99", "critical", 0.3)]),
        ({"p95": 0.13, "p99": 0.4}, [("p95", "critical", 0.12), ("p99", "critical", 0.3)]),
        ({"success": 0.98}, [("success", "warning", 0.99)]),
        ({"success": 0.94}, [("success", "critical", 0.95)]),
        ({"hit_ratio": 0.62}, [("hit_ratio", "warning", 0.63)]),
        ({"hit_ratio": None}, []),
    ],
)
def test_what_is_worse(change: dict[str, Any], found: list[tuple[str, str, float]]) -> None:
    now = baseline(a=msgspec.structs.replace(USUAL, **change), new=USUAL)
    told = list(breaches(baseline(a=USUAL, gone=USUAL), now))
    assert [(each.what, each.severity, each.threshold) for each in told] == found
    assert {each.rule for each in told} <= {"a"}


def test_microseconds_are_no_trouble() -> None:
    fast = msgspec.structs.replace(USUAL, p95=0.0001, p99=0.0002)
    now = msgspec.structs.replace(USUAL, p95=0.002, p99=0.003)
    assert list(breaches(baseline(a=fast), baseline(a=now))) == []
    (found,) = breaches(baseline(a=fast), baseline(a=msgspec.structs.replace(now, p95=0.0021)))
    assert (found.severity, found.threshold) == ("warning", 0.002)


@given(st.binary() | st.text().map(str.encode) | st.builds(lambda n: b'{"format": %d}' % n, st.integers()))
def test_what_is_no_baseline_is_refused_in_words(octets: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(octets)


def test_another_format_is_refused() -> None:
    told = encode(baseline(a=USUAL))
    assert decode(told) == baseline(a=USUAL)
    with pytest.raises(ValueError, match="format 2; this version reads 1"):
        decode(told.replace(b'"format": 1', b'"format": 2'))


async def test_record_check_and_alerts(
    aiohttp_server: AiohttpServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("EDGEPROXY_READ_TOKEN", "secret")
    monkeypatch.delenv("EDGEPROXY_CACHE_DIR", raising=False)
    path = tmp_path / "usual.json"
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "a.yaml").write_text('rules: [{name: items, match: {path: "/items/**"}, ttl: 15m}]')
    async with LedgerOrigin() as origin, running_edge(origin.url, rules=rules) as edge:
        server = await aiohttp_server(make_admin(edge.worker.operator, Auth("secret")))

        async def command(*words: str) -> tuple[int, str]:
            admin = () if words[0] == "alerts" else ("--admin", f"127.0.0.1:{server.port}")
            code = await asyncio.to_thread(main, ["baseline", words[0], str(path), *words[1:], *admin])
            printed = capsys.readouterr()
            return code, printed.out + printed.err

        code, out = await command("record")
        assert code == 1
        assert "no rule had 100 requests within 1h (no rule had any); record it when" in out
        assert not path.exists()
        code, out = await command("check")
        assert (code, out) == (
            1, f"edgeproxy: {path}: there is no such file; edgeproxy baseline record {path}\n",
        )  # fmt: skip
        await edge.get("/items/1")
        code, out = await command("record", "--window", "5m")
        assert "(the most had rule items: 1); record it when there has been more traffic, look" in out
        assert out.endswith("look further back with --window 1h, or be content with less: --least 20\n")
        assert await command("record", "--least", "1") == (0, f"{path}: 1 rule over 1h\n")
        assert await command("check", "--least", "1") == (0, "1 rule as usual\n")
        async with edge.client() as client:
            for _ in range(200):
                await client.request("GET", "/items/1")
            await edge.settle()
            assert await command("record") == (0, f"{path}: 1 rule over 1h\n")
            kept = decode(path.read_bytes()).rules["items"]
            assert (kept.requests, kept.success, kept.hit_ratio) == (201, 1.0, 0.995)
            assert kept.p50 <= kept.p75 <= kept.p90 <= kept.p95 <= kept.p99
            assert await command("check") == (0, "1 rule as usual\n")
            await edge.clock.advance(400)
            assert await command("check") == (0, "too few requests to tell: items\n0 rules as usual\n")
            for number in range(100):
                origin.reply(f"/items/b{number}", status=503 if number < 10 else 200)
                await client.request("GET", f"/items/b{number}")
            await edge.settle()
        code, out = await command("check")
        assert code == 1
        assert "critical: items: success rate 90.0%, under 95.0%\n" in out
        assert "warning: items: hit ratio 0.0%, under 69.7%\n" in out
        code, out = await command("alerts")
        assert code == 0
        (group,) = yaml.safe_load(out)["groups"]
        own = [rule for rule in group["rules"] if rule["labels"].get("rule") == "items"]
        assert len(own) == 6
        path.write_text("[]")
        code, out = await command("check")
        assert code == 1
        assert f"{path} is no baseline: " in out
