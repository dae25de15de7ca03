"""The copy of the rule files that all workers of a node read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.rules.load import load_rules
from edgeproxy.rules.problems import RuleError
from edgeproxy.rules.snapshot import RuleSnapshot

if TYPE_CHECKING:
    from pathlib import Path

RULES = "rules: [{{name: {name}, match: {{path: /a}}, ttl: 1m}}]\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "one.yaml").write_text(RULES.format(name="one"))
    return directory


@pytest.fixture
def snapshot(source: Path, tmp_path: Path) -> RuleSnapshot:
    place = tmp_path / "run"
    place.mkdir()
    return RuleSnapshot(source, place)


def names(snapshot: RuleSnapshot) -> list[str]:
    assert snapshot.directory is not None
    return [rule.name for rule in load_rules(snapshot.directory).rules]


def test_the_copy_is_what_was_read(snapshot: RuleSnapshot, source: Path) -> None:
    taken = snapshot.take()
    assert taken == load_rules(source)
    assert snapshot.directory is not None
    assert load_rules(snapshot.directory).version == taken.version
    (source / "one.yaml").write_text(RULES.format(name="edited"))
    assert names(snapshot) == ["one"]
    assert snapshot.take() is snapshot.ruleset
    assert names(snapshot) == ["edited"]


def test_files_that_are_as_they_were_are_not_read_into_rules_again(
    snapshot: RuleSnapshot, source: Path
) -> None:
    before, directory = snapshot.take(), snapshot.directory
    (source / "one.yaml").write_bytes((source / "one.yaml").read_bytes())
    assert snapshot.take() is before
    (source / "one.yaml").rename(source / "two.yaml")
    assert snapshot.take().rules[0].at == "two.yaml:1"
    assert snapshot.directory != directory


def test_what_is_wrong_changes_nothing(snapshot: RuleSnapshot, source: Path) -> None:
    before = snapshot.take()
    directory = snapshot.directory
    (source / "two.yaml").write_text("rules: 5\n")
    with pytest.raises(RuleError, match=r"two\.yaml:1"):
        snapshot.take()
    assert (snapshot.ruleset, snapshot.directory) == (before, directory)
    assert names(snapshot) == ["one"]


def test_the_copy_before_is_kept_and_no_more(snapshot: RuleSnapshot, source: Path, tmp_path: Path) -> None:
    copies = []
    for name in ("one", "two", "three", "two", "two"):
        (source / "one.yaml").write_text(RULES.format(name=name))
        snapshot.take()
        copies.append(snapshot.directory)
        assert names(snapshot) == [name]
        kept = set((tmp_path / "run").iterdir())
        assert kept <= {copies[-1], *copies[:-1]}
        assert len(kept) <= 2
    assert copies[1] == copies[3] == copies[4]


def test_a_copy_that_a_worker_starts_with_stays_until_it_has_read_it(
    snapshot: RuleSnapshot, source: Path, tmp_path: Path
) -> None:
    snapshot.take()
    with snapshot.held() as order:
        assert order is not None
        for number in range(4):
            (source / "one.yaml").write_text(RULES.format(name=f"number-{number}"))
            snapshot.take()
        assert [rule.name for rule in load_rules(order.directory).rules] == ["one"]
        (source / "one.yaml").write_text(RULES.format(name="one"))
        snapshot.take()  # what is held is in force again
        assert snapshot.directory == order.directory
    for number in range(2):
        (source / "one.yaml").write_text(RULES.format(name=f"later-{number}"))
        snapshot.take()
    assert len(list((tmp_path / "run").iterdir())) == 2
    assert not order.directory.exists() or snapshot._before == order.directory


def test_a_copy_that_was_begun_and_not_ended_is_none(snapshot: RuleSnapshot, tmp_path: Path) -> None:
    begun = tmp_path / "run" / "rules.new"
    begun.mkdir()
    (begun / "zero.yaml").write_text("rules: nonsense")
    snapshot.take()
    assert names(snapshot) == ["one"]


def test_without_rules_nothing_is_copied(tmp_path: Path) -> None:
    snapshot = RuleSnapshot(None, tmp_path)
    assert snapshot.take().version == "none"
    assert snapshot.directory is None
    assert list(tmp_path.iterdir()) == []
