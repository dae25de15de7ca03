"""``edgeproxy check``: good rules, wrong rules, wrong usage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
    assert json.loads(done.out) == {"ok": True, "rules": 1, "examples": 0, "problems": []}


def test_wrong_rules_name_file_line_and_what_was_expected(run: Run, written: Written) -> None:
    directory = written(
        a="rules:\n  - name: pitches\n    match: {path: /a}\n    ttl: soon\n    colour: red\n",
        b="rules: [{name: b, match: {path: '/b'}}]\nrule: 1\n",
    )
    done = run("check", str(directory))
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("a.yaml:4:")
    assert "soon" in lines[0]
    assert lines[1].startswith("a.yaml:5:")
    assert "colour" in lines[1]
    assert lines[2].startswith("b.yaml:2:")
    told = json.loads(run("check", str(directory), "--format", "json").out)
    assert told["ok"] is False
    assert [(p["file"], p["line"]) for p in told["problems"]] == [("a.yaml", 4), ("a.yaml", 5), ("b.yaml", 2)]
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
    assert done.err.startswith("a.yaml:7:")
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
