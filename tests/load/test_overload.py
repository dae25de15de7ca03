"""The overload program in its short form: what has to hold however busy the machine is.

How much is answered, and how soon after, is for ``python -m tests.load.overload``, which gives verdicts.
"""

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
    assert all(result.good for _, result in report.steps), told
    assert "idle clients were cut" in told, "the crowd beside the load did not tell what became of it"
    assert report.crowd.said[0] == 0, told
    assert all(result.no_retry_after == 0 for _, result in report.steps), told
    assert sum(result.other for _, result in report.steps) == 0, told
