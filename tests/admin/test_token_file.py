"""The admin token in a file."""

from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING

import pytest

from edgeproxy.admin.auth import Auth
from edgeproxy.admin.token_file import make_token, read_token

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_one_is_private_long_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "admin-token"
    token = make_token(path)
    assert len(token) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert make_token(path) == read_token(path) == token
    assert [p.name for p in tmp_path.iterdir()] == ["admin-token"]
    Auth(token)


def test_many_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "admin-token"
    start = threading.Barrier(8)
    tokens: list[str] = []

    def make() -> None:
        start.wait()
        tokens.append(make_token(path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 8
    assert len(set(tokens)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "admin-token"
    path.write_text("token\n")
    path.chmod(0o644)
    with pytest.raises(ValueError, match="others may read it"):
        read_token(path)
    with pytest.raises(ValueError, match="others may read it"):
        make_token(path)
    assert read_token(path, private=False) == "token"


@pytest.mark.parametrize("content", ["", " \n", "x" * 5000])
def test_a_file_without_a_token(tmp_path: Path, content: str) -> None:
    path = tmp_path / "admin-token"
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(ValueError, match="expected one token"):
        read_token(path)


def test_what_cannot_be_read_or_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        read_token(tmp_path / "none")
    with pytest.raises(ValueError, match="No such file"):
        make_token(tmp_path / "no" / "directory")
    with pytest.raises(ValueError, match="directory"):
        read_token(tmp_path)
