"""Options of the whole suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--page-pictures",
        metavar="DIR",
        help="have tests/admin/test_page.py write page-light.webp and page-dark.webp there, for the README",
    )
