"""The versions that are kept: what survives, what is dropped, what holds until the files are edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.rules.history import Candidate, InForce, RuleHistory, Unknown
from edgeproxy.rules.load import read_files, version_of
from edgeproxy.rules.taken import NOTHING, take

if TYPE_CHECKING:
    from pathlib import Path

    from edgeproxy.rules.taken import Files

RULES = "rules: [{{name: {name}, match: {{path: /a}}, ttl: 1m}}]\n"


def files(name: str) -> Files:
    return [("one.yaml", RULES.format(name=name).encode())]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "rules"
    directory.mkdir()
    write(directory, "a")
    return directory


def write(directory: Path, name: str) -> None:
    (directory / "one.yaml").write_bytes(files(name)[0][1])


@pytest.fixture
def history(tmp_path: Path) -> RuleHistory:
    return RuleHistory(tmp_path / "kept", keep=3)


def record(history: RuleHistory, name: str, at: float = 1.0) -> None:
    history.record(files(name), at=at, how="reload", by="ada", rules=1, source="rules")


def in_force(history: RuleHistory, source: Path) -> InForce:
    """Read again, as after a restart."""
    return InForce(source, RuleHistory(source.parent / "kept", keep=3))


def test_versions_survive_and_only_changes_count(history: RuleHistory, tmp_path: Path) -> None:
    for name in ("a", "a", "b"):
        record(history, name)
    again = RuleHistory(tmp_path / "kept", keep=3)
    assert [(v.number, v.version, v.by) for v in again.versions] == [
        (1, version_of(files("a")), "ada"), (2, version_of(files("b")), "ada"),
    ]  # fmt: skip
    assert again.files(again.find("").version) == files("a")
    assert again.find("2").version == version_of(files("b"))
    assert again.find(version_of(files("a"))[:6]).number == 1
    for wrong in ("9", "zzzz", version_of(files("a"))[:3]):
        with pytest.raises(Unknown, match="kept are 1, 2"):
            again.find(wrong)


def test_it_is_bounded_and_keeps_what_is_needed(history: RuleHistory, tmp_path: Path) -> None:
    record(history, "a")
    tried = history.keep_files(files("tried"))
    history.try_out(Candidate(tried, 10.0, 5))
    for name in "bcdef":
        record(history, name)
    assert [v.number for v in history.versions] == [4, 5, 6]
    kept = {path.name for path in (tmp_path / "kept" / "sets").iterdir()}
    assert kept == {tried, *(version_of(files(name)) for name in "def")}
    with pytest.raises(Unknown, match="not kept any more"):
        history.files(version_of(files("a")))


def test_what_is_damaged_is_not_brought_back(history: RuleHistory) -> None:
    record(history, "a")
    version = version_of(files("a"))
    (history.directory(version) / "one.yaml").write_text("rules: []")
    with pytest.raises(Unknown):
        history.files(version)
    history.keep_files(files("a"))
    assert history.files(version) == files("a")


def test_a_damaged_list_is_none(history: RuleHistory, tmp_path: Path) -> None:
    record(history, "a")
    (tmp_path / "kept" / "history.json").write_text('{"versions": 7}')
    assert RuleHistory(tmp_path / "kept").versions == ()


def test_what_is_held_holds_until_the_files_are_edited(history: RuleHistory, source: Path) -> None:
    record(history, "a")
    write(source, "bad")
    record(history, "bad")
    InForce(source, history).hold(version_of(files("a")))
    assert in_force(history, source).wanted().files == files("a")
    assert in_force(history, source).wanted().files == files("a")
    write(source, "mended")
    assert in_force(history, source).wanted().files == files("mended")
    write(source, "bad")  # edited, and back: that is for who edits to say
    assert in_force(history, source).wanted().files == files("bad")


def test_to_hold_what_the_files_say_is_to_hold_nothing(history: RuleHistory, source: Path) -> None:
    record(history, "b")
    book = InForce(source, history)
    book.hold(version_of(files("b")))
    assert history.held is not None
    book.hold(version_of(files("a")))
    assert history.held is None


def test_what_is_lost_is_not_held_and_not_tried(history: RuleHistory, source: Path) -> None:
    record(history, "b")
    book = InForce(source, history)
    book.hold(version_of(files("b")))
    history.try_out(Candidate(version_of(files("gone")), 50.0, 5))
    for path in history.directory(version_of(files("b"))).iterdir():
        path.unlink()
    wanted = in_force(history, source).wanted()
    assert (wanted.files, wanted.candidate) == (files("a"), None)


def test_files_that_are_as_they_were_are_not_made_into_rules_again(
    history: RuleHistory, source: Path
) -> None:
    book = InForce(source, history)
    first = take(book.wanted(), NOTHING)
    assert take(book.wanted(), first) is first
    history.try_out(Candidate(history.keep_files(files("b")), 0.0, 5))
    shadowed = take(book.wanted(), first)
    assert shadowed.ruleset is first.ruleset
    assert shadowed.mark == f"{first.mark}+{version_of(files('b'))}@0/5"
    history.try_out(None)
    assert take(book.wanted(), shadowed).mark == version_of(read_files(source))
