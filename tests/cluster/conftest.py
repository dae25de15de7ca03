from __future__ import annotations

import pytest

from tests.support.fixtures import a_background, a_redis

redis = pytest.fixture(a_redis)
"""One for each test: these take it down, empty it and bring it back."""

background = pytest.fixture(a_background)
