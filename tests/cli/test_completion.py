"""``edgeproxy completion``: the shells take the scripts, and bash completes what is to be completed."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

    Run = Callable[..., Done]

COMPLETE = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
COMP_LINE="${{COMP_WORDS[*]}}"
function=$(complete -p edgeproxy | sed -n 's/.*-F \\([^ ]*\\) .*/\\1/p')
$function edgeproxy "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}" 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(run: Run, tmp_path: Path) -> Callable[[str], Path]:
    def make(shell: str) -> Path:
        done = run("completion", shell)
        assert (done.code, done.err) == (0, "")
        path = tmp_path / shell
        path.write_text(done.out)
        return path

    return make


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_takes_it(script: Callable[[str], Path], shell: str) -> None:
    path = script(shell)
    assert "edgeproxy" in path.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on the PATH")
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on the PATH")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("edgeproxy re", {"reload", "replay"}),
        ("edgeproxy serve --drain-", {"--drain-delay", "--drain-timeout", "--drain-grace"}),
        ("edgeproxy serve --lane o", {"on", "off"}),
        ("edgeproxy completion z", {"zsh"}),
        ("edgeproxy init --k", {"--kubernetes"}),
    ],
)
def test_bash_completes(script: Callable[[str], Path], words: str, offered: set[str]) -> None:
    program = COMPLETE.format(script=script("bash"), words=words)
    done = subprocess.run(
        ["bash", "--norc", "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert {word.strip() for word in done.stdout.split()} == offered


def test_only_shells_that_there_are(run: Run) -> None:
    done = run("completion", "cmd")
    assert done.code == 2
    assert "invalid choice: 'cmd'" in done.err
