"""Options of the whole suite."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

from tests.support.bytecode import keep_bytecode

if TYPE_CHECKING:
    import pytest

keep_bytecode()


# How long an example takes says more of the machine than of the code: speed is measured in tests/bench.
settings.register_profile("edgeproxy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeproxy")


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
