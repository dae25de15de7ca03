from __future__ import annotations

import asyncio
import os

import pytest

from tests.support.leaks import no_leaks


async def test_nothing_left_passes() -> None:
    async with no_leaks():
        await asyncio.sleep(0)


async def test_a_task_left_is_named() -> None:
    async def lingering() -> None:
        await asyncio.get_running_loop().create_future()

    async with asyncio.TaskGroup() as group:
        with pytest.raises(AssertionError, match="lingering"):
            async with no_leaks():
                task = group.create_task(lingering())
        task.cancel()


async def test_a_descriptor_left_is_named() -> None:
    pair: tuple[int, int] = (-1, -1)
    with pytest.raises(AssertionError, match=r"descriptor .* pipe"):
        async with no_leaks():
            pair = os.pipe()
    for fd in pair:
        os.close(fd)
