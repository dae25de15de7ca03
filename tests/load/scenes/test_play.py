"""Every scene in its shortest form: that the answers are right and the report is there. Nothing of speed."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.load.__main__ import main
from tests.load.scenes import plan
from tests.load.scenes.body import body_of
from tests.load.scenes.stage import Origin
from tests.support.origins import request

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


def test_all_scenes(tmp_path: Path) -> None:
    wanted = tmp_path / "targets.yaml"
    wanted.write_text("scenes: {cold: {success_percent: 100}}\n")  # more than all is more than can be
    out = tmp_path / "out"
    assert main(["--all", "--short", "0.2", "--targets", str(wanted), "--out", str(out)]) == 1
    report = json.loads((out / "report.json").read_text())
    page = (out / "report.md").read_text()
    assert [scene["name"] for scene in report["scenes"]] == list(plan.read())
    assert f"{len(report['scenes']) - 1} of {len(report['scenes'])} passed" in page
    for scene in report["scenes"]:
        told = json.dumps(scene, indent=1)
        assert scene["passed"] == (scene["name"] != "cold"), told
        assert [phase["name"] for phase in scene["phases"]] == [
            phase.name for phase in plan.read()[scene["name"]].phases
        ]
        assert all(phase["outcomes"].get("wrong", 0) == 0 for phase in scene["phases"]), told
        assert scene["whole"]["outcomes"]["right"] > 0, told
        assert scene["whole"]["cache"].get("HIT", 0) > 0, told
        for what in ("latency", "requests", "hits"):
            name = f"{scene['name']}-{what}.svg"
            assert (out / name).stat().st_size > 0
            assert f"]({name})" in page


def test_an_edge_of_somebody_elses_and_an_origin_that_dies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The origin is the edge here: any server is one, that says nothing of a cache."""
    wanted = tmp_path / "targets.yaml"
    wanted.write_text("all: {}\n")
    with Origin() as origin:
        arguments = ["steady", "outage", "--short", "0.25", "--targets", str(wanted)]
        assert main([*arguments, "--url", origin.url, "--out", str(tmp_path / "out")]) == 0
        assert "outage: left out" in capsys.readouterr().out
        (scene,) = json.loads((tmp_path / "out" / "report.json").read_text())["scenes"]
        assert scene["whole"]["outcomes"].keys() == {"right"}
        assert scene["whole"]["hits_percent"] is None

        origin.happens("killed")
        with pytest.raises(OSError, match="refused"):
            request(origin.port, "GET", "/a")
        origin.happens("back")
        origin.happens("stopped")
        assert origin._process is not None
        origin._process.send_signal(signal.SIGCONT)
        assert request(origin.port, "GET", "/a").body == body_of("/a")
