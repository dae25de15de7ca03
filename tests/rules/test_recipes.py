"""The recipes, and every other rule file in public text: each loads, its examples hold, check is content."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeproxy.rules.lint import lint
from edgeproxy.rules.load import load_text
from edgeproxy.rules.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^(?:rules|pools|warm|defaults):", re.MULTILINE)
BLOCKS = [
    pytest.param(block, id=f"{path.parent.name}/{path.name}:{number}")
    for path in (ROOT / "README.md", ROOT / "rules" / "README.md")
    for number, block in enumerate(_BLOCK.findall(path.read_text()))
]


def test_there_are_twenty_and_each_tries_itself() -> None:
    assert len(RECIPES) >= 20
    for recipe in RECIPES:
        assert all(rule.examples for rule in load_text(recipe.text).rules), recipe.title
        assert "example: " not in recipe.text
    assert len({recipe.title for recipe in RECIPES}) == len(RECIPES)


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_shown_may_be_used_as_it_stands(block: str) -> None:
    """Blocks that are no whole file are keys of one, and tried by the tests of the loader."""
    if _FILE.search(block):
        ruleset = load_text(block)
        assert [str(each) for each in lint(ruleset)] == []
