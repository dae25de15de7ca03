"""What the tests of WebSockets start from, on both loops: a connection that changes hands does so on each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvloop

from tests.scenarios.conftest import clock, origin, rules

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["clock", "origin", "rules"]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
