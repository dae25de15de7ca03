"""``edgeproxy check``: good rules, wrong rules, wrong usage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Done

    Run = Callable[..., Done]
    Written = Callable[..., Path]


def test_the_shipped_rules_are_good(run: Run) -> None:
    done = run("check")
    assert (done.code, done.err) == (0, "")
    assert "rules, " in done.out
    assert done.out.endswith("examples, all good\n")


def test_good_rules(run: Run, written: Written) -> None:
    directory = written(a="rules: [{name: pitches, match: {path: '/api/pitches/**'}, ttl: 15m}]")
    done = run("check", str(directory))
    assert done == (0, f"{directory}: 1 rule, 0 examples, all good\n", "")
    done = run("check", str(directory), "--format", "json")
    assert json.loads(done.out) == {"ok": True, "rules": 1, "examples": 0, "problems": [], "findings": []}


def test_wrong_rules_name_file_line_and_what_was_expected(run: Run, written: Written) -> None:
    directory = written(
        a="rules:\n  - name: pitches\n    match: {path: /a}\n    ttl: soon\n    colour: red\n",
        b="rules: [{name: b, match: {path: '/b'}}]\nrule: 1\n",
    )
    done = run("check", str(directory))
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert len(lines) == 3
    a, b = f"{directory}/a.yaml", f"{directory}/b.yaml"
    assert lines[0].startswith(f"{a}:4:")
    assert "soon" in lines[0]
    assert lines[1].startswith(f"{a}:5:")
    assert "colour" in lines[1]
    assert lines[2].startswith(f"{b}:2:")
    told = json.loads(run("check", str(directory), "--format", "json").out)
    assert told["ok"] is False
    assert [(p["file"], p["line"]) for p in told["problems"]] == [(a, 4), (a, 5), (b, 2)]
    assert all(p["message"] for p in told["problems"])


def test_examples_that_fail_refuse_the_file(run: Run, written: Written) -> None:
    directory = written(
        a="""
rules:
  - name: pitches
    match: {path: "/api/pitches/**"}
    ttl: 15m
    examples:
      - {request: GET /api/pitches/1, expect: {ttl: 16m}}
"""
    )
    done = run("check", str(directory))
    assert done.code == 1
    assert done.err.startswith(f"{directory}/a.yaml:7:")
    assert "15m" in done.err


def test_wrong_usage(run: Run, tmp_path: Path) -> None:
    for words in (
        ("check", "/no/such"),
        ("check", "/dev/null"),
        ("check", "--format", "xml"),
        ("check", "a", "b"),
    ):
        done = run(*words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("edgeproxy")
        assert done.err.count("\n") == 1
    # A directory without rules is a mistake in the making.
    done = run("check", str(tmp_path))
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_schema(run: Run) -> None:
    done = run("check", "--schema")
    assert done.code == 0
    assert "rules" in json.loads(done.out)["properties"]


SHADOWED = """rules:
  - {name: api, match: {path: "/api/**"}, ttl: 1m, unsafe: [set_cookie]}
  - {name: items, match: {path: "/api/items/{id}"}, ttl: 5m}
"""


def test_warnings_are_told_and_count_where_that_is_wanted(run: Run, written: Written) -> None:
    directory = written(a=SHADOWED)
    done = run("check", str(directory))
    a = f"{directory}/a.yaml"
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"{a}:3: warning: items: never reached: api ({a}:2) takes all it matches",
        f"{directory}: 2 rules, 0 examples, 1 warning",
    ]
    assert run("check", str(directory), "--strict").code == 1
    told = json.loads(run("check", str(directory), "--format", "json").out)
    assert told["findings"] == [
        {
            "kind": "dead-rule", "rule": "items", "at": f"{a}:3",
            "message": f"never reached: api ({a}:2) takes all it matches",
            "others": [{"name": "api", "at": f"{a}:2"}],
        }
    ]  # fmt: skip


def test_files_are_named_as_they_were_typed(
    run: Run, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(a=SHADOWED)
    monkeypatch.chdir(tmp_path)
    for typed in ("rules", "rules/", "./rules", "rules/a.yaml"):
        assert run("check", typed).out.startswith("rules/a.yaml:3: warning: items: never reached")
        log = json.loads(run("check", typed, "--format", "sarif").out)
        place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "rules/a.yaml"
    monkeypatch.chdir(tmp_path / "rules")
    assert run("check", ".").out.startswith("a.yaml:3: ")
    assert run("check", "../rules").out.startswith("../rules/a.yaml:3: ")


def test_one_file_is_checked_as_if_it_were_alone(run: Run, written: Written) -> None:
    directory = written(
        a=SHADOWED,
        b="rules: [{name: b, match: {path: /b}, ttl: soon}]",
        c="pools: {far: {origins: [http://a]}}",
    )
    done = run("check", str(directory / "a.yaml"))
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(f"\n{directory}/a.yaml: 2 rules, 0 examples, 1 warning\n")
    assert run("check", str(directory / "b.yaml")).err.startswith(f"{directory}/b.yaml:1:")
    written(b="rules: [{name: b, match: {path: /b}, origin: far}]")
    assert run("check", str(directory)).code == 0
    done = run("check", str(directory / "b.yaml"))
    assert done.code == 1
    assert done.err.endswith(f"\npools of other files are known to: edgeproxy check {directory}\n")


def test_sarif(run: Run, written: Written) -> None:
    directory = written(a=SHADOWED)
    log = json.loads(run("check", str(directory), "--format", "sarif").out)
    (result,) = log["runs"][0]["results"]
    assert (log["version"], result["ruleId"], result["level"]) == ("2.1.0", "dead-rule", "warning")
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == f"{directory}/a.yaml"
    assert place["region"]["startLine"] == 3
    assert {each["id"] for each in log["runs"][0]["tool"]["driver"]["rules"]} >= {"dead-rule", "refused"}

    directory = written(a="rules:\n  - {name: a, match: {path: /a}, ttl: soon}\n")
    done = run("check", str(directory), "--format", "sarif")
    (result,) = json.loads(done.out)["runs"][0]["results"]
    assert (done.code, result["ruleId"], result["level"]) == (1, "refused", "error")
    assert result["locations"][0]["physicalLocation"]["region"]["startLine"] == 2


def test_what_a_log_shows(run: Run, written: Written, tmp_path: Path) -> None:
    directory = written(a=SHADOWED)
    record = {
        "time": "2026-01-01T00:00:00.000Z", "method": "GET", "host": "h", "target": "/api/x", "status": 200,
        "reason": "set-cookie",
    }  # fmt: skip
    (tmp_path / "log").write_text(json.dumps(record) + "\n")
    out = run("check", str(directory), "--log", str(tmp_path / "log")).out
    assert f"\n{directory}/a.yaml:2: warning: api: unsafe: [set_cookie] gives all clients one " in out
    assert "answer, and 1 request" in out
    assert run("check", str(directory), "--log", "/no/such").code == 2
