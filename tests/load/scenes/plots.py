"""The course of a scene as pictures.

Rules of this file: each picture has one axis with one unit; times are shown by decades, since what matters is
whether they are ten times as long; what an edge did not tell is not drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.load.scenes.chart import Line, svg
from tests.load.scenes.figures import begin_of_each

if TYPE_CHECKING:
    from pathlib import Path

    from tests.load.scenes.figures import Played

COLOURS = ("good", "fair", "bad")


def draw(played: Played, directory: Path) -> list[Path]:
    """The pictures' files."""
    points, samples = played.points, played.samples
    times = zip(("p50", "p95", "p99"), COLOURS, strict=True)
    held = zip(("descriptors", "tasks"), COLOURS, strict=False)
    pictures = {
        "latency": (
            "Milliseconds from when a request was due",
            [Line(key.upper(), colour, [(p.at, getattr(p, key)) for p in points]) for key, colour in times],
        ),
        "requests": (
            "Requests a second",
            [
                Line("right", "good", [(p.at, p.rate) for p in points]),
                Line("failed", "bad", [(p.at, p.failed) for p in points]),
            ],
        ),
        "hits": ("Hits, percent", [Line("hits", "good", [(p.at, p.hits) for p in points])]),
    }
    if samples:
        memory = [(s.at, s.memory / 2**20) for s in samples]
        pictures["memory"] = ("The edge's memory, MiB", [Line("resident", "good", memory)])
        pictures["held"] = (
            "What the edge holds",
            [Line(key, colour, [(s.at, getattr(s, key)) for s in samples]) for key, colour in held],
        )
    begins = begin_of_each(played.scene)
    sections = [(begin, phase.name) for begin, phase in zip(begins, played.scene.phases, strict=True)]
    written = []
    for what, (title, lines) in pictures.items():
        path = directory / f"{played.scene.name}-{what}.svg"
        path.write_text(
            svg(title, lines, sections, played.scene.seconds, decades=what in ("latency", "held"))
        )
        written.append(path)
    return written
