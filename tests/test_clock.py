"""The one reader of time: it does not follow the wall clock where that jumps (C9)."""

from __future__ import annotations

import time

import pytest

from edgeproxy.clock import Clock


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, 10 * 365 * 86400.0])
def test_the_wall_clock_may_jump(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    wall = time.time  # noqa: TID251 - it is what is tested
    clock = Clock()
    before = clock.now()
    assert before == pytest.approx(wall(), abs=1)
    monkeypatch.setattr(time, "time", lambda: wall() + jump)
    assert before <= clock.now() < before + 60
    # A worker that starts after the jump has its parent's base, and agrees with those from before it.
    assert Clock(clock.base).now() == pytest.approx(clock.now(), abs=1)
    assert Clock().now() == pytest.approx(before + jump, abs=60)
