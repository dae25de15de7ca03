"""The demo origin's static files: a style sheet, a script and a picture of the sizes that sites have.

Rules of this file: made once, in memory, the same octets every time, so that ETags hold across restarts.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from edgeproxy.demo.catalogue import EPOCH, GENRES

_COLOURS = ("ink", "paper", "rose", "amber", "moss", "teal", "sky", "plum")
_SIDES = {"t": "top", "r": "right", "b": "bottom", "l": "left"}
_STATES = ("", "hover", "focus-visible", "disabled")


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    content_type: str
    etag: str
    modified: int = EPOCH
    """Seconds since 1970."""


def assets() -> dict[str, Asset]:
    """Make all of them: name -> Asset."""
    made = {
        "site.css": (_style_sheet(), "text/css"),
        "app.js": (_script(), "text/javascript"),
        "map.svg": (_picture(), "image/svg+xml"),
    }
    return {name: _asset(text, kind) for name, (text, kind) in made.items()}


def _asset(text: str, content_type: str) -> Asset:
    body = text.encode()
    return Asset(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:20]}"')


def _style_sheet() -> str:
    """About 35 KB: one class a declaration, as utility style sheets are."""
    lines = [":root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }"]
    for size in range(33):
        rem = f"{size / 4:g}rem"
        lines += [f".m{s}-{size} {{ margin-{side}: {rem}; }}" for s, side in _SIDES.items()]
        lines += [f".p{s}-{size} {{ padding-{side}: {rem}; }}" for s, side in _SIDES.items()]
        lines.append(f".text-{size} {{ font-size: {rem}; line-height: {size / 3:.2f}rem; }}")
    for hue, colour in enumerate(_COLOURS):
        for shade in range(5, 100, 10):
            value = f"hsl({hue * 45} {30 + shade // 2}% {shade}%)"
            for state in _STATES:
                suffix = f":{state}" if state else ""
                name = f"{state}\\:" if state else ""
                lines.append(f".{name}bg-{colour}-{shade}{suffix} {{ background-color: {value}; }}")
    return "\n".join(lines) + "\n"


def _script() -> str:
    """About 90 KB: a small client of the API and a table of easing curves that it draws with."""
    easing = ",\n".join(
        f"  {{ genre: '{genre}', step: {step}, at: {step / 200:.3f}, "
        f"value: {math.sin(step / 200 * math.pi * (1 + row) / 2) ** 2:.6f} }}"
        for row, genre in enumerate(GENRES)
        for step in range(200)
    )
    return f"""// The pitch board: fetches a page of pitches and draws it.
const CURVES = [
{easing}
];
export function curve(genre) {{
  return CURVES.filter((point) => point.genre === genre);
}}
export async function board(root, genre, page = 1) {{
  const answer = await fetch(`/api/pitches?genre=${{encodeURIComponent(genre)}}&page=${{page}}`);
  if (!answer.ok) throw new Error(`pitches: ${{answer.status}}`);
  const {{ pitches }} = await answer.json();
  root.replaceChildren(...pitches.map((pitch) => {{
    const line = document.createElement('li');
    line.textContent = `${{pitch.title}} (${{pitch.score}})`;
    return line;
  }}));
}}
"""


def _picture() -> str:
    """About 20 KB: one wavy line a genre."""
    paths = []
    for row, genre in enumerate(GENRES):
        points = " ".join(
            f"{x},{40 * row + 30 + 20 * math.sin(x / (9 + row)) * math.cos(x / 31):.1f}"
            for x in range(0, 800, 4)
        )
        paths.append(
            f'<g id="{genre}"><title>{genre}</title>'
            f'<polyline fill="none" stroke="hsl({row * 45} 60% 45%)" points="{points}"/></g>'
        )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 340">\n{"".join(paths)}\n</svg>\n'
