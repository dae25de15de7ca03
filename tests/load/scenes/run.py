"""Play scenes: tell the sender what to send, do what happens meanwhile, and collect what came of it.

Rules of this file:

- The load never waits for what happens: the sender says that a phase has begun and goes on.
- Whatever was started ends here, in whatever way the run ends.
"""

from __future__ import annotations

import contextlib
import resource
import secrets
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from tests.load.scenes.figures import Played
from tests.load.scenes.record import Begun, Ended, Job, Line
from tests.load.scenes.stage import Edge, Origin, Samples, our_edge
from tests.support.origins import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.load.scenes.plan import Scene

SAMPLES = 200
"""About so many of a scene, at most one a second."""
PER_ADDRESS = 20_000
"""Connections from one address of this machine to the edge: an address has some 28,000 ports for that."""
SPARE = 500


class Unusable(Exception):  # noqa: N818 - a state of the machine
    """A run cannot be; the message is one line."""


@dataclass(slots=True)
class Sender:
    process: subprocess.Popen[bytes]

    def play(self, job: Job, begun: Callable[[int], None]) -> Played:
        """``begun`` is called with the number of each phase."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(msgspec.json.encode(job) + b"\n")
        self.process.stdin.flush()
        played = Played.begin(job.scene)
        for text in self.process.stdout:
            line: Line = msgspec.json.decode(text, type=Line)
            if isinstance(line, Begun):
                begun(line.phase)
            elif isinstance(line, Ended):
                played.unfilled = line.unfilled
                return played
            else:
                played.take(line.second)
        raise Unusable("the sender has ended; what it said of that stands above")


@contextlib.contextmanager
def sender() -> Iterator[Sender]:
    """A process of its own, so that the load waits for nobody here."""
    command = [sys.executable, "-m", "tests.load.scenes.sender"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Sender(process)
        finally:
            process.kill()


def play_on_ours(
    scenes: Sequence[Scene], directory: Path, *, together: bool, done: Callable[[Played], None]
) -> None:
    """With an origin and an edge of the program's own; ``together``: one edge for all scenes."""
    want_descriptors(max(phase.connections for scene in scenes for phase in scene.phases))
    with Origin() as origin, sender() as load:
        groups = [list(scenes)] if together else [[scene] for scene in scenes]
        for number, group in enumerate(groups):
            with our_edge(origin.url, group, directory / str(number)) as edge:
                for scene in group:
                    done(_play(scene, edge, load, origin=origin))


def play_on(
    scenes: Sequence[Scene], edge: Edge, paths: list[str] | None, done: Callable[[Played], None]
) -> None:
    """Against an edge that runs already."""
    want_descriptors(max(phase.connections for scene in scenes for phase in scene.phases))
    with sender() as load:
        for scene in scenes:
            done(_play(scene, edge, load, paths=paths))


def _play(
    scene: Scene, edge: Edge, load: Sender, *, origin: Origin | None = None, paths: list[str] | None = None
) -> Played:
    most = max(phase.connections for phase in scene.phases)
    local = edge.host.startswith("127.")
    job = Job(
        scene, edge.host, edge.port, edge.authority, secrets.token_hex(4), tls=edge.tls, paths=paths,
        addresses=1 + most // PER_ADDRESS if local else 1,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        samples = Samples(edge, max(1.0, scene.seconds / SAMPLES))

        def begun(number: int) -> None:
            phase = scene.phases[number]
            if number == 0:
                stack.enter_context(samples)
            if phase.origin is not None and origin is not None:
                origin.happens(phase.origin)
            if phase.purge:
                edge.purge()

        played = load.play(job, begun)
    played.samples = samples.taken
    return played


def want_descriptors(connections: int) -> None:
    """As many as may be, for the processes that are started as well. Raises Unusable."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < connections + SPARE:
        raise Unusable(
            f"{connections:,} connections take {connections + SPARE:,} open files, ulimit -Hn is {hard:,}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
