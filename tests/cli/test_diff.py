"""``edgeproxy diff``: which URLs are decided otherwise, and nothing else."""

from __future__ import annotations

import gzip
import io
import json
import sys
from dataclasses import fields
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cli.logged import Log
from edgeproxy.cli.replay import Replay
from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.policy.stored import Overrides
from edgeproxy.rules.compare import FIELDS
from edgeproxy.rules.load import load_text
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.model import Rule
from edgeproxy.rules.possible import possible, together
from edgeproxy.rules.simulate import Simulation
from tests.cli.logs import line, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

    Diff = Callable[..., tuple[int, dict[str, Any]]]

OLD = """
rules:
  - name: german
    match: {path: "/**", headers: {accept-language: "~de.*"}}
    ttl: 1m
  - name: item
    match: {path: "/api/items/{id}"}
    ttl: 60s
    tags: ["item:{id}"]
    invalidates: [{on: [DELETE], tags: ["item:{id}"]}]
  - {name: api, match: {path: "/api/**"}, ttl: 10s}
  - {name: own, match: {path: "/me/**"}, pass: true}
"""


@pytest.fixture
def diff(run: Callable[..., Done], tmp_path: Path) -> Diff:
    def compared(old: str, new: str, *words: str) -> tuple[int, dict[str, Any]]:
        (tmp_path / "old.yaml").write_text(old)
        (tmp_path / "new.yaml").write_text(new)
        done = run("diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), "--format", "json", *words)
        assert done.err == ""
        return done.code, json.loads(done.out)

    return compared


def only(groups: list[dict[str, Any]], old: str, new: str) -> dict[str, Any]:
    found = [g for g in groups if (g["old"]["name"], g["new"]["name"]) == (old, new) and not g["when"]]
    assert len(found) == 1
    return found[0]


def words(group: dict[str, Any]) -> set[str]:
    return {f"{c['field']}: {c['old']} -> {c['new']}" for c in group["changes"]}


def test_nothing_changes(diff: Diff, tmp_path: Path) -> None:
    log = write(tmp_path / "log", line(0, "/api/items/1"), line(0, "/x"))
    assert diff(OLD, OLD)[0] == 0
    code, told = diff(OLD, f"# a word\n{OLD}", "--log", log)
    assert (code, told["groups"], told["urls"]) == (0, [], 2)


def test_a_ttl_with_the_requests_it_concerns(diff: Diff, tmp_path: Path) -> None:
    new = OLD.replace("ttl: 60s", "ttl: 5m")
    lines = [line(n, "/api/items/1") for n in range(3)] + [line(4, "/api/items/2"), line(5, "/api/other")]
    code, told = diff(OLD, new, "--log", write(tmp_path / "log", *lines))
    assert code == 1
    (group,) = told["groups"]
    assert (group["urls"], group["requests"]) == (2, 4)
    assert words(group) == {"ttl: 1m -> 5m"}
    assert group["samples"][0] == {
        "method": "GET", "host": "a.example", "target": "/api/items/1", "requests": 3,
    }  # fmt: skip


def test_a_passed_method_does_not_care_for_a_ttl_but_for_what_it_purges(diff: Diff, tmp_path: Path) -> None:
    log = write(tmp_path / "log", line(0, "/api/items/1", method="DELETE"))
    assert diff(OLD, OLD.replace("ttl: 60s", "ttl: 5m"), "--log", log)[0] == 0
    _, told = diff(OLD, OLD.replace("on: [DELETE]", "on: [PUT]"), "--log", log)
    assert words(only(told["groups"], "item", "item")) == {"invalidates: tag item:1 -> none"}
    gets = write(tmp_path / "gets", line(0, "/api/items/1"))
    assert diff(OLD, OLD.replace("on: [DELETE]", "on: [PUT]"), "--log", gets)[0] == 0


def test_key_tags_and_another_rule(diff: Diff, tmp_path: Path) -> None:
    urls = tmp_path / "urls"
    urls.write_text("# some\n\n/api/items/1?utm_source=x\nGET /me/x\nhttp://b.example/api/z\n")
    new = OLD.replace('tags: ["item:{id}"]\n    inv', 'key: {query: {ignore: ["utm_*"]}}\n    inv').replace(
        "- {name: own", '- {name: zed, match: {path: "/api/z"}}\n  - {name: own'
    )
    new = new.replace("pass: true", "ttl: 1s").replace('"/api/**"}', '"/api/**", host: a.example}')
    code, told = diff(OLD, new, "--urls", str(urls))
    assert code == 1
    assert words(only(told["groups"], "item", "item")) == {
        "key: host, query -> host, query without utm_*", "tags: item:{id} -> none",
    }  # fmt: skip
    assert words(only(told["groups"], "api", "zed")) == {"ttl: 10s -> as the answer says"}
    assert words(only(told["groups"], "own", "own")) == {
        "cache: passed (rule-says-pass) -> cached", "ttl: as the answer says -> 1s",
    }  # fmt: skip


def test_what_hangs_on_fields_is_said_not_guessed(diff: Diff, tmp_path: Path) -> None:
    log = write(tmp_path / "log", line(0, "/api/items/1"))
    _, told = diff(OLD, OLD.replace("ttl: 1m", "ttl: 2m"), "--log", log)
    (group,) = told["groups"]
    assert group["when"] == ["header accept-language: ~de.*"]
    assert (group["old"]["name"], words(group)) == ("german", {"ttl: 1m -> 2m"})
    assert told["changed_urls"] == 0


def test_a_masked_value_is_open_too(diff: Diff, tmp_path: Path) -> None:
    old = 'rules: [{name: vip, match: {path: "/a", query: {key: gold}}, ttl: 1m}]'
    log = write(tmp_path / "log", line(0, "/a?key=***"), line(0, "/a?key=tin"))
    _, told = diff(old, old.replace("1m", "2m"), "--log", log)
    (group,) = told["groups"]
    assert (group["when"], group["urls"]) == (["query key: gold"], 1)
    assert told["log"]["masked"] == 1


CONDITIONS = (
    "{path: /a, headers: {x-a: true}}", "{path: /a, headers: {x-a: false, x-b: one}}",
    "{path: /a, cookies: {c: true}}", "{path: '/*', headers: {x-b: '~o.*'}}", "{path: /b}", "{path: /a}",
)  # fmt: skip


def test_every_request_falls_under_a_pair_that_was_named() -> None:
    """Against the matcher, which sees the whole request."""

    def made(order: tuple[int, ...]) -> Matcher:
        rules = "\n".join(f"- {{name: r{i}, match: {CONDITIONS[i]}}}" for i in order)
        return Matcher(load_text(f"rules:\n{rules}"))

    old, new = made((0, 1, 2, 5)), made((3, 2, 0, 4))
    bare = RequestHead("GET", "http", "h", "/a")
    pairs = together(possible(old, bare), possible(new, bare))
    named = {(before.rule.name, after.rule.name) for _, before, after in pairs}
    met = set()
    for a, b, c in product((None, "1"), (None, "one", "two"), (None, "c=1")):
        sent = [("x-a", a), ("x-b", b), ("cookie", c)]
        request = RequestHead("GET", "http", "h", "/a", Headers.of([(n, v) for n, v in sent if v]))
        met.add((old.match(request).rule.name, new.match(request).rule.name))
    assert met <= named
    assert ("r0", "none") not in named  # who sends x-a is r0's in the new set as well
    assert len(met) > 4


def test_no_key_of_rules_is_forgotten() -> None:
    known = {f.name for f in FIELDS}
    written = {"pass_": "pass", "parts": "range"}
    assert {written.get(f.name, f.name) for f in fields(Overrides)} <= known
    apart = {"name", "at", "match", "overrides", "examples"}
    assert {f.name for f in fields(Rule)} - apart <= known


def test_by_name_and_by_examples(diff: Diff, run: Callable[..., Done], tmp_path: Path) -> None:
    new = OLD.replace("name: api,", "name: rest,").replace(
        "ttl: 60s", "ttl: 90s\n    examples: [/api/items/1]"
    )
    new = new.replace(
        "examples: [/api/items/1]", "examples: [{request: /api/items/1, expect: {cached: true}}]"
    )
    code, told = diff(OLD, new)
    assert code == 1
    rules = told["rules"]
    assert [r["name"] for r in rules["added"] + rules["removed"]] == ["rest", "api"]
    assert [r["name"] for r in rules["changed"]] == ["item"]
    assert [g["samples"][0]["target"] for g in told["groups"]] == ["/api/items/1"]
    shown = run("diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"))
    assert "changed  item (new.yaml:6)\n  ttl: 1m -> 1m30s" in shown.out
    assert shown.out.endswith("1 URL of the examples looked at: decided otherwise in 1 group\n")


def test_samples_are_few_unless_all_are_wanted(diff: Diff, tmp_path: Path) -> None:
    log = write(tmp_path / "log", *(line(n, f"/api/items/{n}") for n in range(20)))
    new = OLD.replace("ttl: 60s", "ttl: 5m")
    assert len(diff(OLD, new, "--log", log)[1]["groups"][0]["samples"]) == 5
    assert len(diff(OLD, new, "--log", log, "--all")[1]["groups"][0]["samples"]) == 20


def test_gzip_standard_input_and_lines_that_cannot_be_read(
    diff: Diff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = OLD.replace("ttl: 60s", "ttl: 5m")
    text = "\n".join(
        [line(0, "/api/items/1"), "", "{not json", "[]", '{"method": 1}', line(1, "/", status="x")]
    ).encode()
    (tmp_path / "log.gz").write_bytes(gzip.compress(text))
    for source, stdin in ((str(tmp_path / "log.gz"), b""), ("-", text), ("-", gzip.compress(text))):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        code, told = diff(OLD, new, "--log", source)
        assert (code, told["requests"]) == (1, 1)
        assert (told["log"]["lines"], told["log"]["unread"]) == (5, 4)
        assert told["log"]["first_unread"] == {"line": 3, "why": "not JSON"}
    (tmp_path / "cut.gz").write_bytes(gzip.compress(text)[:-9])
    assert diff(OLD, new, "--log", str(tmp_path / "cut.gz"))[1]["log"]["broken_off"] is True


def test_what_clients_sent_does_not_reach_the_terminal(run: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(OLD)
    log = write(tmp_path / "log", line(0, "/api/items/\x1b[2J\x9b"))
    done = run("diff", str(tmp_path / "a.yaml"), "none", "--log", log)
    assert done.code == 1
    assert "/api/items/\\x1b[2J\\x9b" in done.out


FIELDS_OF_A_LINE = st.sampled_from([*json.loads(line(0, "/")), "sample"])
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.just([]), st.just({}),
    st.text("aZ19/?&=*%\x1b\xe9\ud800", max_size=12),
    st.text("0123456789.eE+-", max_size=6).map("2026-01-01T00:00:00{}Z".format),
)  # fmt: skip


@given(st.lists(st.one_of(st.binary(), st.dictionaries(FIELDS_OF_A_LINE, VALUES)), max_size=6))
def test_no_line_is_too_odd_to_be_counted(lines: list[bytes | dict[str, Any]]) -> None:
    good = json.loads(line(0, "/"))
    text = b"\n".join(
        each.replace(b"\n", b"") if isinstance(each, bytes) else json.dumps({**good, **each}).encode()
        for each in lines
    )
    with pytest.MonkeyPatch.context() as patched:
        # An even beginning, so that no run of octets is taken for gzip.
        patched.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n" + text)))
        log = Log("-")
        read = list(log)
    assert len(read) == log.lines - log.unread
    assert (log.first_unread is None) == (log.unread == 0)
    replay = Replay({"rules": Simulation(load_text(OLD), memory=10_000, then={})})
    replay.play(read)
    assert replay.total()["rules"].requests == len(read)


def test_wrong_input(run: Callable[..., Done], tmp_path: Path) -> None:
    for given_words in (
        ("none", str(tmp_path / "no")), ("none", "none", "--log", str(tmp_path / "no")),
        ("none", "none", "--urls", "/dev/null", "--log", "/dev/null"),
        ("none", "none", "--log", str(tmp_path)),
        ("none", "none", "--log", write(tmp_path / "text", "GET / 200")),
        ("none", "none", "--urls", write(tmp_path / "urls", "/a", "/b /c /d")),
    ):  # fmt: skip
        done = run("diff", *given_words)
        assert (done.code, done.out) == (2, ""), given_words
        assert done.err.startswith("edgeproxy"), given_words
