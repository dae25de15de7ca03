"""The settings in force: read again, refused, given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy import settings
from edgeproxy.config_copy import ConfigCopy
from edgeproxy.settings import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = "origin: http://127.0.0.1:9\nstore: 'memory:'\nworkers: 2\nrules: none\ncache-dir: /c\n"


def load(file: str | None) -> settings.Settings:
    return settings.load({"config": file}, {"EDGEPROXY_ORIGIN": "http://127.0.0.1:8"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "edge.yaml"
    written.write_text(BEFORE)
    return written


def test_the_copy_is_what_was_read(file: Path, tmp_path: Path) -> None:
    config = ConfigCopy(str(file), load)
    config.take(tmp_path)
    first = config.path
    assert first is not None
    file.write_text(BEFORE.replace("workers: 2", "workers: 5"))
    assert load(str(first)).workers == 2  # what a worker that starts now reads
    assert config.take(tmp_path).workers == config.settings.workers == 5
    assert config.path != first
    assert config.give_back().workers == config.settings.workers == 2
    assert config.path == first
    assert first.read_text() == BEFORE


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("workers: many", "edge.yaml: workers: 'many': expected a whole number, 1 or more, or auto"),
        ("wrokers: 3", "edge.yaml: unknown key 'wrokers'; did you mean workers?"),
        ("a: b: c", "edge.yaml: "),
        ("listen: 127.0.0.1:1", "--listen: changed, which takes a restart"),
        ("admin: 127.0.0.1:1", "--admin: changed, which takes a restart"),
        ("cache-dir: /elsewhere", "--cache-dir: changed, which takes a restart"),
        ("store: redis://127.0.0.1", "--store (by default one for each --origin): changed"),
        ("rules: HERE", "--rules: changed, which takes a restart"),
    ],
)
def test_what_is_refused_changes_nothing(file: Path, tmp_path: Path, line: str, says: str) -> None:
    config = ConfigCopy(str(file), load)
    before = config.take(tmp_path)
    path = config.path
    file.write_text(BEFORE + line.replace("HERE", str(tmp_path)) + "\n")
    with pytest.raises(SettingsError) as raised:
        config.take(tmp_path)
    assert says in str(raised.value)
    assert "config-2" not in str(raised.value)  # the operator's file is meant, not our copy
    assert config.settings is before
    assert config.path == path


def test_a_file_that_is_gone(file: Path, tmp_path: Path) -> None:
    config = ConfigCopy(str(file), load)
    file.unlink()
    with pytest.raises(SettingsError, match=r"--config: .*edge\.yaml: No such file"):
        config.take(tmp_path)


def test_without_a_file(tmp_path: Path) -> None:
    config = ConfigCopy(None, load)
    assert config.take(tmp_path).origin == "http://127.0.0.1:8"
    assert config.path is None
    assert list(tmp_path.iterdir()) == []
