"""How many CPUs this process may use, which is how many workers ``--workers auto`` means.

Rules of this file:

- Three bounds, the least counts: those of the machine that the process may run on, and the CPU time that each
  control group on the way from its own to the root is given (a container's limit, a service's CPUQuota).
- Whole CPUs, rounded down, at least one: with more workers than that they would only take turns.
- What cannot be read sets no bound.
"""

from __future__ import annotations

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *_quotas()]))


def _quotas() -> list[int]:
    """Whole CPUs of each group that has a limit. A container sees its own group as the root, or by the path
    that it has outside, which is not there inside."""
    found = []
    for line in _read(OWN).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:  # version 2
            found += [_quota(*_read(group / "cpu.max").split()) for group in _up(GROUPS, path)]
        elif "cpu" in controllers.split(","):
            found += [
                _quota(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))
                for group in _up(GROUPS / "cpu", path)
            ]
    return [cpus for cpus in found if cpus is not None]


def _up(root: Path, path: str) -> list[Path]:
    """The group and all above it."""
    names = [name for name in path.split("/") if name not in ("", "..")]
    return [root.joinpath(*names[:count]) for count in range(len(names) + 1)]


def _quota(quota: str = "max", period: str = "") -> int | None:
    """Microseconds of CPU time, and in how many; "max" or -1 is no limit."""
    try:
        return int(quota) // int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
