"""How many CPUs we may use: what the kernel says of this process and of its control groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy import cpus

if TYPE_CHECKING:
    from pathlib import Path

V2 = "0::{}\n"
V1 = "12:pids:/a\n4:cpu,cpuacct:{}\n0::/a\n"


@pytest.mark.parametrize(
    ("own", "path", "limits", "expected"),
    [
        pytest.param(V2, "/", {"cpu.max": "250000 100000"}, 2, id="a container's limit, rounded down"),
        pytest.param(V2, "/", {"cpu.max": "50000 100000"}, 1, id="less than one"),
        pytest.param(V2, "/", {"cpu.max": "max 100000"}, 4, id="no limit"),
        pytest.param(V2, "/", {"cpu.max": "9900000 100000"}, 4, id="more than there are"),
        pytest.param(V2, "/", {}, 4, id="no file"),
        pytest.param(V2, "/", {"cpu.max": "?"}, 4, id="no number"),
        pytest.param(V2, "/", {"cpu.max": "300000 0"}, 4, id="no period"),
        pytest.param(V2, "/s/edge", {"s/edge/cpu.max": "200000 100000"}, 2, id="a service's quota"),
        pytest.param(
            V2, "/s/edge", {"s/edge/cpu.max": "max 100000", "s/cpu.max": "300000 100000"}, 3, id="a slice's"
        ),
        pytest.param(V2, "/../edge", {"edge/cpu.max": "100000 100000"}, 1, id="a namespace"),
        pytest.param(
            V1,
            "/docker/1",
            {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2,
            id="version 1, in a container",
        ),
        pytest.param(
            V1,
            "/",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            4,
            id="v1, no limit",
        ),
        pytest.param("nonsense", "", {"cpu.max": "100000 100000"}, 4, id="a file that says nothing"),
    ],
)
def test_the_least_of_what_is_allowed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: str,
    path: str,
    limits: dict[str, str],
    expected: int,
) -> None:
    (tmp_path / "own").write_text(own.format(path))
    for name, text in limits.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(cpus, "OWN", tmp_path / "own")
    monkeypatch.setattr(cpus, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert cpus.usable_cpus() == expected


def test_where_there_is_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "OWN", tmp_path / "none")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert cpus.usable_cpus() == 3
