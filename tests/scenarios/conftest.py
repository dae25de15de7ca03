"""What every scenario starts from: a ledger origin, a driven clock, and nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.driven import DrivenClock
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock()


@pytest.fixture
async def origin(clock: DrivenClock) -> AsyncIterator[LedgerOrigin]:
    async with LedgerOrigin(clock=clock) as ledger:
        yield ledger


@pytest.fixture
def rules(tmp_path: Path) -> Callable[[str], Path]:
    """Writes one rule file and gives its directory."""

    def write(text: str) -> Path:
        directory = tmp_path / "rules"
        directory.mkdir(exist_ok=True)
        (directory / "rules.yaml").write_text(text)
        return directory

    return write
