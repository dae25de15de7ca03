"""The overload program in its short form: its steps of two seconds are too short for its verdicts in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.load.overload import SHORT, STEPS, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


def test_three_times_what_it_can(tmp_path: Path) -> None:
    report = run(SHORT, tmp_path)
    told = "\n".join(report.lines())
    assert [times for times, _ in report.steps] == list(STEPS)
    assert report.goodput_at_three > 0.5, told
    assert report.recovered > 0.9, told
    assert report.memory_factor < 1.6, told
    assert all(result.no_retry_after == 0 for _, result in report.steps), told
    assert sum(result.other for _, result in report.steps) == 0, told
