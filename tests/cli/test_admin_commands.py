"""``purge`` and ``stats`` against a real admin port, through their own parsers."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import ssl
from typing import TYPE_CHECKING

import pytest

from edgeproxy.admin.api import make_admin
from edgeproxy.admin.auth import Auth
from edgeproxy.admin.control import Kind, PurgeRequest, WarmRequest
from edgeproxy.admin.token_file import make_token
from edgeproxy.cli import client, purge, reload, stats, warm
from edgeproxy.cli.client import octets
from edgeproxy.observe.metrics import Metrics
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.vocabulary import CacheWord, NotStored
from tests.admin.control import SmallControl
from tests.support.driven import DrivenClock
from tests.support.redis_kinds import make_authority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pytest_aiohttp import AiohttpServer

    Start = Callable[[Auth], Awaitable[str]]


@pytest.fixture
def control() -> SmallControl:
    return SmallControl()


@pytest.fixture
def start(aiohttp_server: AiohttpServer, control: SmallControl) -> Start:
    async def begin(auth: Auth) -> str:
        server = await aiohttp_server(make_admin(control, auth))
        return f"127.0.0.1:{server.port}"

    return begin


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "EDGEPROXY_ADMIN_TOKEN", "EDGEPROXY_READ_TOKEN", "EDGEPROXY_ADMIN", "EDGEPROXY_CACHE_DIR",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def command(*words: str) -> int:
    """Parse and run, in a thread: the commands block."""
    parser = argparse.ArgumentParser(prog="edgeproxy")
    subparsers = parser.add_subparsers(required=True)
    purge.add_parser(subparsers)
    stats.add_parser(subparsers)
    reload.add_parser(subparsers)
    warm.add_parser(subparsers)
    try:
        args = parser.parse_args(words)
    except SystemExit as left:
        return int(str(left.code))
    code: int = await asyncio.to_thread(args.run, args)
    return code


@pytest.mark.parametrize(
    ("words", "request_", "says"),
    [
        (("--url", "/a?b"), PurgeRequest(Kind.URL, "/a?b"), "purged url /a?b: 3 objects, 2.9 KiB"),
        (("--tag", "t", "--soft"), PurgeRequest(Kind.TAG, "t", soft=True), "marked stale tag t: 3 objects"),
        (("--prefix", "/a"), PurgeRequest(Kind.PREFIX, "/a"), "purged prefix /a"),
        (("--pattern", "/b*"), PurgeRequest(Kind.PATTERN, "/b*"), "purged pattern /b*"),
        (("--all",), PurgeRequest(Kind.ALL), "(purge 1; l1 ok, l2 ok)"),
    ],
)
async def test_purge(
    start: Start,
    control: SmallControl,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    request_: PurgeRequest,
    says: str,
) -> None:
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "secret")
    admin = await start(Auth("secret"))
    assert await command("purge", *words, "--admin", admin) == 0
    assert control.purged == [request_]
    out = capsys.readouterr()
    assert says in out.out
    assert out.err == ""


async def test_a_dry_run_says_what_would_go(
    start: Start, control: SmallControl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "secret")
    monkeypatch.setenv("EDGEPROXY_ADMIN", await start(Auth("secret")))
    assert await command("purge", "--all", "--dry-run") == 0
    assert control.purged == []
    assert "would purge everything: 3 objects (l1 ok, l2 ok)" in capsys.readouterr().out
    control.objects = None
    assert await command("purge", "--tag", "t", "--dry-run", "--soft") == 0
    assert "would mark stale tag t: objects not counted" in capsys.readouterr().out


async def test_a_layer_that_was_not_told_is_a_failure(
    start: Start, control: SmallControl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    control.layers = {"l1": "ok", "l2": "redis:\x1b[31m refused"}
    token_file = tmp_path / "token"
    token_file.write_text("secret\n")
    admin = await start(Auth("secret"))
    assert await command("purge", "--all", "--admin", admin, "--token-file", str(token_file)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert "l2: redis:" in err


@pytest.mark.parametrize(
    "words",
    [
        ("purge",),
        ("purge", "--all", "--tag", "t"),
        ("warm",),
        ("warm", "http://h/", "--most-wanted"),
        ("warm", "--file", "/no/such/file"),
        ("warm", "http://h/", "--rate", "0"),
        ("warm", "http://h/", "-H", "no colon"),
        ("purge", "--tag", ""),
        ("purge", "--all", "--admin", "nonsense"),
        ("purge", "--all", "--admin", "127.0.0.1:1", "--token-file", "/no/such/file"),
        ("stats", "--admin", "127.0.0.1:99999"),
        ("stats", "extra"),
    ],
)
async def test_wrong_usage_is_exit_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert await command(*words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("edgeproxy")


async def test_refusals_are_exit_1_with_what_the_server_said(
    start: Start, control: SmallControl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = await start(Auth("secret", "reading"))
    for words, says in (
        (("purge", "--all"), "refused (401): changing things needs"),
        (("stats",), "refused (401): reading needs a token"),
    ):
        assert await command(*words, "--admin", admin) == 1
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "wrong")
    assert await command("purge", "--all", "--admin", admin) == 1
    assert "not known here; the token is from EDGEPROXY_ADMIN_TOKEN" in capsys.readouterr().err
    assert control.purged == []


async def test_the_admin_port_as_a_url(
    aiohttp_server: AiohttpServer,
    control: SmallControl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """https:// asks with TLS, and trusts what the machine trusts or --admin-ca; http:// without."""
    authority = make_authority(tmp_path)
    if authority is None:
        pytest.skip("no openssl to make certificates with")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server)
    clear = await aiohttp_server(make_admin(control, Auth()))
    secure = await aiohttp_server(make_admin(control, Auth()), ssl=context)
    trusted = ("--admin-ca", str(authority.ca))
    for given in (
        (f"http://127.0.0.1:{clear.port}",),
        (f"HTTP://127.0.0.1:{clear.port}/",),
        (f"https://127.0.0.1:{secure.port}", *trusted),
        (f"127.0.0.1:{secure.port}", *trusted),
    ):
        assert await command("stats", "--json", "--admin", *given) == 0, given
    capsys.readouterr()
    wrong: tuple[tuple[tuple[str, ...], str], ...] = (
        ((f"https://127.0.0.1:{secure.port}",), "certificate was not accepted"),
        ((f"https://127.0.0.1:{secure.port}",), "; --admin-ca FILE says whom to trust"),
        ((f"https://127.0.0.1:{clear.port}", *trusted), "does it speak TLS? if not, write http://"),
    )
    for words, says in wrong:
        assert await command("stats", "--admin", *words) == 1
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    monkeypatch.setenv("EDGEPROXY_ADMIN", f"https://127.0.0.1:{secure.port}")
    assert await command("stats", "--json") == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("http://h:1/api", "expected host and port and no more, such as http://127.0.0.1:8081"),
        ("https://h:1?a", "expected host and port and no more, such as https://127.0.0.1:8081"),
        ("https://h:1#a", "expected host and port and no more"),
        ("https://:8081", "expected host and port and no more"),
        ("https:///", "expected host and port and no more"),
        ("https://u:secret@h:1", "expected no user or password; the admin token goes into --token-file"),
        ("u:secret@h:1", "expected no user or password"),
        ("https://h:99999", "expected HOST:PORT, such as"),
        ("ftp://h:1", "expected HOST:PORT, such as"),
        ("http://a..b:80", "no host has such a name"),
        ("a..b:80", "no host has such a name"),
        (f"{'a' * 70}:80", "no host has such a name"),
        ("http://h:1 --admin-ca f", "expected https://, since --admin-ca is given"),
    ],
)
async def test_a_url_that_is_no_admin_port(given: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command("stats", "--admin", *given.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith("edgeproxy: --admin: ")
    assert says in err
    assert "secret" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://h", "h:80"),
        ("https://h", "h:443"),
        ("https://[::1]", "[::1]:443"),
        ("https://[::1]:2", "[::1]:2"),
    ],
)
def test_the_port_of_a_url_is_its_schemes(given: str, address: str) -> None:
    found, tls = client._address(argparse.Namespace(admin=given, admin_ca=None), {})
    assert (str(found), tls) == (address, given.startswith("https"))


async def test_nobody_there(unused_tcp_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command("stats", "--admin", f"127.0.0.1:{unused_tcp_port}") == 1
    err = capsys.readouterr().err
    assert "is edgeproxy running?" in err
    assert err.count("\n") == 1


async def test_somebody_else_there(capsys: pytest.CaptureFixture[str]) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await command("stats", "--admin", f"127.0.0.1:{port}") == 1
    assert "is not an admin port of edgeproxy" in capsys.readouterr().err


async def test_on_ones_own_machine_the_kept_token_is_used(
    start: Start, control: SmallControl, tmp_path: Path
) -> None:
    kept = tmp_path / "cache" / "edgeproxy" / "admin-token"
    kept.parent.mkdir(parents=True)
    admin = await start(Auth(make_token(kept)))
    assert await command("purge", "--all", "--admin", admin) == 0
    assert len(control.purged) == 1


async def test_the_token_of_another_instance(
    start: Start,
    control: SmallControl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is open can be read with it; a change names the file; --cache-dir finds the right one."""
    usual, other = tmp_path / "cache" / "edgeproxy", tmp_path / "other"
    for directory in (usual, other):
        directory.mkdir(parents=True)
    make_token(usual / "admin-token")
    admin = await start(Auth(make_token(other / "admin-token")))
    assert await command("stats", "--json", "--admin", admin) == 0
    assert await command("purge", "--all", "--admin", admin) == 1
    assert f"; the token is from {usual / 'admin-token'}\n" in capsys.readouterr().err
    for words in (("purge", "--all"), ("reload",), ("stats", "--json")):
        assert await command(*words, "--admin", admin, "--cache-dir", str(other)) == 0
    monkeypatch.setenv("EDGEPROXY_CACHE_DIR", str(other))
    assert await command("purge", "--all", "--admin", admin) == 0
    assert len(control.purged) == 2
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "of a third one")
    assert await command("purge", "--all", "--admin", admin, "--cache-dir", str(other)) == 0
    assert await command("purge", "--all", "--admin", admin, "--cache-dir", str(tmp_path)) == 2
    assert f"{tmp_path / 'admin-token'}: No such file" in capsys.readouterr().err


async def test_reload(
    start: Start, control: SmallControl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "secret")
    admin = await start(Auth("secret"))
    assert await command("reload", "--admin", admin) == 0
    assert capsys.readouterr() == ("rules version v2, 4 rules\n", "")
    control.errors = ("a.yaml:2:5: \x1b[31mno such key", "b.yaml:1:1: empty")
    assert await command("reload", "--admin", admin) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "a.yaml:2:5:  [31mno such key",
        "b.yaml:1:1: empty",
        "edgeproxy: the rule files have 2 errors; the rules loaded before go on",
    ]
    control.errors, control.missing = (), ("worker 2: no answer within 60 s",)
    assert await command("reload", "--admin", admin) == 1
    assert capsys.readouterr().err.startswith("worker 2: no answer within 60 s\nedgeproxy: not every worker")
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "wrong")
    assert await command("reload", "--admin", admin) == 1
    assert "refused (401)" in capsys.readouterr().err


async def test_stats(
    start: Start, control: SmallControl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = Metrics(
        DrivenClock(),
        ["pitches", "idle"],
        {
            "store": lambda: {
                "epoch": 3, "purges": 0, "l1_entries": 5, "l1_bytes": 2048, "l1_evictions": 0,
                "uncacheable": 2,
                "l2": "ok", "l2_name": "lmdb:/x", "l2_hits": 7, "l2_misses": 0, "l2_corrupt_total": 1,
                "l2_store_bytes": 1024, "l2_store_errors": 0,
            }
        },
    )  # fmt: skip
    for _ in range(3):
        metrics.observe(
            Trace(
                rule="pitches", word=CacheWord.HIT, hit=True, saved_seconds=40.0, bytes_out=1024, status=200
            )
        )
    metrics.observe(
        Trace(rule="pitches", word=CacheWord.MISS, status=200, not_stored=NotStored.SET_COOKIE, seconds=1)
    )
    control.numbers = metrics.snapshot()
    monkeypatch.setenv("EDGEPROXY_READ_TOKEN", "reading")
    admin = await start(Auth("secret", "reading"))
    assert await command("stats", "--admin", admin) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = ["rule", "requests", "passed", "hits", "hit", "ratio", "sent", "origin", "time", "saved"]
    assert lines[0].split() == titles
    assert lines[1].split() == ["pitches", "4", "0", "3", "75.0%", "3.0", "KiB", "2", "m", "0", "s"]
    assert lines[2].split() == ["all", "4", "0", "3", "75.0%", "3.0", "KiB", "2", "m", "0", "s"]
    assert "not stored: set-cookie 1" in lines
    assert lines[lines.index("store: epoch 3, uncacheable 2") :] == [
        "store: epoch 3, uncacheable 2",
        "memory (L1): entries 5, bytes 2.0 KiB",
        "shared store (L2): ok, lmdb:/x, hits 7, corrupt 1",
        "what the shared store says: bytes 1.0 KiB",
    ]
    assert await command("stats", "--json", "--admin", admin) == 0
    assert json.loads(capsys.readouterr().out)["rules"]["pitches"]["hit_ratio"] == 0.75


async def test_stats_before_the_first_request(
    start: Start, control: SmallControl, capsys: pytest.CaptureFixture[str]
) -> None:
    control.numbers = Metrics(DrivenClock()).snapshot()
    assert await command("stats", "--admin", await start(Auth())) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "all",
        "0",
        "0",
        "0",
        "-",
        "0",
        "B",
        "0.0",
        "s",
    ]


@pytest.mark.parametrize("admin", ["192.0.2.2:1", "http://192.0.2.2:1", "https://192.0.2.2:1", "h.example:1"])
async def test_a_kept_token_stays_on_its_machine(
    admin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_token(tmp_path / "admin-token")
    monkeypatch.setattr(http.client.HTTPConnection, "connect", _refused)
    assert await command("stats", "--admin", admin, "--cache-dir", str(tmp_path)) == 2
    err = capsys.readouterr().err
    assert err.startswith("edgeproxy: --cache-dir: the token kept there is sent to a loopback address only")
    assert err.endswith("give it with --token-file\n")


@pytest.mark.parametrize(
    ("admin", "warned"),
    [
        ("8.8.8.8:1", True),
        ("http://[2606:4700::1]:1", True),
        ("https://8.8.8.8:1", False),
        ("10.0.0.1:1", False),
        ("127.0.0.1:1", False),
        ("localhost:1", False),
        ("h.example:1", False),
    ],
)
async def test_a_token_in_clear_to_a_public_address_is_warned_of(
    admin: str, *, warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "connect", _refused)
    client._warn_if_public.cache_clear()
    assert await command("stats", "--admin", admin) == 1
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "secret-of-many-letters")
    assert [await command("stats", "--admin", admin) for _ in range(2)] == [1, 1]
    err = capsys.readouterr().err
    assert err.count("edgeproxy: warning: the token goes to ") == warned
    assert "secret" not in err


def _refused(_: object) -> None:
    raise ConnectionRefusedError(111, "Connection refused")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB")]
)
def test_octets(number: int, text: str) -> None:
    assert octets(number) == text


def test_stats_show_origins_where_there_is_something_to_see() -> None:
    row = {"state": "usable", "reason": "", "requests": 9, "failures": 0, "errors": 1, "retries": 2}
    lone = {"origins": {"default": {"http://a": {**row, "latency_seconds": 0.0123}}}}
    assert "http://a" not in stats._table(lone)
    lone["origins"]["default"]["http://a"] |= {"state": "breaker open", "reason": "refused"}
    assert (
        "default: http://a: breaker open (refused), 9 requests, 0 failures, 1 errors, 2 retries, 12.3 ms"
        in (stats._table(lone))
    )
    both = {"origins": {"api": {"http://a": row, "http://b": {**row, "canary": "on trial"}}}}
    assert "api: http://b: usable, canary on trial, 9 requests" in stats._table(both)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("http://h/1", "/2", "--host", "http://h"), WarmRequest(("http://h/1", "/2"), host="http://h")),
        (
            ("--sitemap", "http://h/s.xml", "--also-host", "www"),
            WarmRequest((), "http://h/s.xml", hosts=("www",)),
        ),
        (("--most-wanted",), WarmRequest(most_wanted=200)),
        (("--most-wanted", "7", "--rate", "2.5"), WarmRequest(most_wanted=7, rate=2.5)),
        (
            ("http://h/1", "-H", "Accept-Language: de", "--concurrency", "9"),
            WarmRequest(("http://h/1",), concurrency=9, headers=(("accept-language", "de"),)),
        ),
    ],
)
async def test_warm(
    start: Start,
    control: SmallControl,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    wanted: WarmRequest,
) -> None:
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "secret")
    assert await command("warm", *words, "--admin", await start(Auth("secret"))) == (len(wanted.urls) > 1)
    assert control.warmed == [wanted]


async def test_warm_shows_each_url(
    start: Start,
    control: SmallControl,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "secret")
    admin = await start(Auth("secret"))
    listed = tmp_path / "list"
    listed.write_text("# ours\nhttp://h/\x1b1\n\nhttp://h/2\n")
    assert await command("warm", "--file", str(listed), "--admin", admin) == 1
    out = capsys.readouterr()
    assert out.out.splitlines() == [
        "stored        http://h/ 1  1.5 KiB  12 ms",
        "failed        http://h/2  503  (server-error)",
        "2 URLs: 1 stored, 1 failed",
    ]
    assert out.err == ""
    assert await command("warm", "http://h/1", "--format", "json", "--admin", admin) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [next(iter(line)) for line in lines] == ["job", "url", "job"]
    assert (lines[1]["done"], lines[1]["total"]) == (1, 1)
    assert await command("warm", "http://refused", "--admin", admin) == 1
    assert "refused (400): expected a URL" in capsys.readouterr().err
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", "wrong")
    assert await command("warm", "http://h/1", "--admin", admin) == 1
    assert "401" in capsys.readouterr().err
    assert control.cancelled == []


def test_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = warm._Bar(shown=True)
    bar.draw({"state": "preparing", "total": 0, "done": 0})
    bar.clear()
    bar.draw({"url": "x", "total": 4, "done": 1})
    bar.clear()
    bar.clear()
    err = capsys.readouterr().err
    assert err == f"\rgathering URLs\r\x1b[K\r[{'#' * 7}{'.' * 23}] 1/4\r\x1b[K"
