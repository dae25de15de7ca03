"""Options of the whole suite."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--page-pictures",
        metavar="DIR",
        help="have tests/admin/test_page.py write page-light.webp and page-dark.webp there, for the README",
    )


def pytest_collection_finish() -> None:
    """Thousands of tests are objects that stay: tests that have garbage collected need not look at them."""
    gc.collect()
    gc.freeze()
