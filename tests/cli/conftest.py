"""``run``: one command of the real command line, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from edgeproxy.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Done(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    for name in ("EDGEPROXY_RULES", "EDGEPROXY_CONFIG", "EDGEPROXY_ORIGIN"):
        monkeypatch.delenv(name, raising=False)

    def command(*words: str) -> Done:
        try:
            code = main(list(words))
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return command


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes rule files (name without .yaml -> text) and gives their directory."""

    def write(**files: str) -> Path:
        directory = tmp_path / "rules"
        directory.mkdir(exist_ok=True)
        for name, text in files.items():
            (directory / f"{name}.yaml").write_text(text)
        return directory

    return write
