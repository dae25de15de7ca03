"""Lines over time as an SVG document that needs nothing but itself.

Rules of this file:

- One axis upwards, evenly or by decades; the sections of the time are named below it, where they begin.
- No script, no font and no style from elsewhere; light or dark as the reader's machine is.
- Numbers in the document are rounded to a tenth of a pixel: a picture of an hour stays small.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 760, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 34, 28
LEAST = 0.01
"""There is no logarithm of nought: by decades, what is less than this is this."""
APART = 70
"""Pixels between the names of two sections, at least; one that has not so many is left out."""

STYLE = """\
text{font:12px system-ui,sans-serif;fill:#57606a}
.title{font-size:14px}
.grid{stroke:#8c959f;stroke-opacity:.35}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.good{stroke:#1a7f37}.fair{stroke:#9a6700}.bad{stroke:#cf222e}
rect.good{fill:#1a7f37}rect.fair{fill:#9a6700}rect.bad{fill:#cf222e}
@media (prefers-color-scheme:dark){text{fill:#9198a1}
.good{stroke:#3fb950}.fair{stroke:#d29922}.bad{stroke:#f85149}
rect.good{fill:#3fb950}rect.fair{fill:#d29922}rect.bad{fill:#f85149}}
"""


@dataclass(frozen=True, slots=True)
class Line:
    """``colour``: good, fair or bad. ``points``: seconds and value; where it is None the line has a gap."""

    name: str
    colour: str
    points: Sequence[tuple[float, float | None]]


def svg(
    title: str, lines: Sequence[Line], sections: Sequence[tuple[float, str]], seconds: float, *, decades: bool
) -> str:
    """``sections``: when each begins, and its name."""
    scale = _Scale([y for line in lines for _, y in line.points if y is not None], decades=decades)

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * second / seconds

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="18">{escape(title)}</text>',
    ]
    for value, label in scale.marks:
        y = scale.y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    free = 0.0
    for begin, name in sections:
        parts.append(f'<path class="grid" d="M{x(begin):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        if x(begin) >= free:
            free = x(begin) + APART
            told = escape(f"{name}, {begin:,g} s")
            parts.append(f'<text x="{x(begin):.1f}" y="{HEIGHT - BOTTOM + 16}">{told}</text>')
    right = WIDTH - RIGHT
    for line in reversed(lines):
        right -= 26 + 7 * len(line.name)
        parts.append(f'<rect class="{line.colour}" x="{right}" y="8" width="10" height="10"/>')
        parts.append(f'<text x="{right + 14}" y="18">{escape(line.name)}</text>')
    for line in lines:
        for run in _without_gaps(line.points):
            drawn = " ".join(f"{x(at):.1f},{scale.y(value):.1f}" for at, value in run)
            parts.append(f'<polyline class="line {line.colour}" points="{drawn}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """Upwards. ``marks``: values and their labels."""

    def __init__(self, values: Sequence[float], *, decades: bool) -> None:
        self._decades = decades
        values = values or [1.0]
        if decades:
            least = floor(self._of(min(values)))
            self._range = float(least), float(max(ceil(self._of(max(values))), least + 1))
            self.marks = [(10.0**n, f"{10.0**n:,g}") for n in range(least, int(self._range[1]) + 1)]
        else:
            step = _step(max([*values, LEAST]))
            count = max(1, ceil(max(values) / step))
            self._range = 0.0, step * count
            self.marks = [(step * n, f"{step * n:,g}") for n in range(count + 1)]

    def _of(self, value: float) -> float:
        return log10(max(value, LEAST)) if self._decades else value

    def y(self, value: float) -> float:
        low, high = self._range
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (self._of(value) - low) / (high - low)


def _step(most: float) -> float:
    """1, 2 or 5 times a power of ten, that goes four times into ``most``, about."""
    power: float = 10.0 ** floor(log10(most / 4))
    return next(factor * power for factor in (1, 2, 5, 10) if most / (factor * power) <= 5)


def _without_gaps(points: Sequence[tuple[float, float | None]]) -> Iterator[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for at, value in points:
        if value is not None:
            run.append((at, value))
        elif run:
            yield run
            run = []
    if run:
        yield run
