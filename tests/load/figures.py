"""What the edge's process uses, read from /proc while the load goes on.

Rules of this file:

- *Memory* is what the process has for itself (RssAnon): pages of the store's file that it has looked at are
  the kernel's cache, and go when somebody needs them. They are told beside it.
- The *plateau* of a time is the median of samples, one each EVERY seconds; the most of them is told too.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 0.2
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Octets."""

    own: int
    file: int


def memory(pid: int) -> Memory:
    said = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            said[name] = int(value.split()[0]) * 1024
    return Memory(said["RssAnon"], said["RssFile"])


def processor(pid: int) -> float:
    """Seconds of processor time that the process has used, the kernel's for it too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def waited(pid: int) -> float:
    """Seconds that the process's main thread could have run and had no processor: it was another's."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


@dataclass
class Watch:
    """Samples of a process's own memory, in octets, in parts: ``next_part`` ends one."""

    pid: int
    parts: list[list[int]] = field(default_factory=lambda: [[]])

    async def run(self) -> None:
        while True:
            self.sample()
            await asyncio.sleep(EVERY)

    def sample(self) -> None:
        self.parts[-1].append(memory(self.pid).own)

    def next_part(self) -> None:
        self.sample()
        self.parts.append([])

    @property
    def plateaus(self) -> list[float]:
        """Of each part."""
        return [statistics.median(part) for part in self.parts if part]

    @property
    def most(self) -> int:
        return max(sample for part in self.parts for sample in part)
