"""THREATS.md names files and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:edgeproxy|tests)/[\w/.]+\.(?:py|yaml))(?:::(\w+))?`")


def test_every_file_and_test_is_there() -> None:
    text = (ROOT / "tests/hardening/THREATS.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 15
    for threat, defence, test in rows[2:]:
        assert NAMED.search(test), threat
        for file, name in NAMED.findall(f"{defence} {test}"):
            assert (ROOT / file).exists(), (threat, file)
            if name:
                assert f"def {name}(" in (ROOT / file).read_text(), (threat, name)
