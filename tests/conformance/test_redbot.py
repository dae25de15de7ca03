"""REDbot looks at what three origins answer, directly and through edgeproxy, and finds nothing worse there.

Rules of this file:

- Each URL is looked at on the origin, then twice on the edge: the second time it is answered from the cache
  where it may be. What REDbot warns of or calls bad on the edge and not on the origin fails.
- httpbin's /cache and /etag are left out. Their ETag has no quotes; REDbot asks with quotes, httpbin takes
  that for the same, and the edge compares octet by octet (RFC 9110 §8.8.3.2).
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.origins import ROOT, datasette, demo_origin, edgeproxy_process, httpbin

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.origins import Running

pytest.importorskip("redbot", reason="pip install redbot")

WORSE = ("WARN", "BAD")
HTTPBIN = (
    "/html", "/json", "/xml", "/image/png", "/image/svg", "/redirect-to?url=/get", "/status/404", "/cache/60",
    "/response-headers?ETag=%22v1%22&Cache-Control=max-age%3D60", "/gzip", "/brotli", "/stream/5",
)  # fmt: skip
DATASETTE = (
    "/geo/cities.json?_shape=array", "/geo/cities", "/geo/cities.csv?_size=50", "/-/static/app.css",
    "/-/static/table.js", "/geo/nowhere", "/geo/cities/7",
)  # fmt: skip
DEMO = (
    "/api/pitches", "/api/pitches/1", "/api/search?q=a", "/api/live/1", "/static/site.css", "/static/app.js",
    "/static/map.svg", "/static/none",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.xdist_group("redbot")
@pytest.mark.parametrize(
    ("start", "rules", "targets"),
    [
        pytest.param(httpbin, "none", HTTPBIN, id="httpbin"),
        pytest.param(datasette, "none", DATASETTE, id="datasette"),
        pytest.param(demo_origin, ROOT / "rules", DEMO, id="demo"),
    ],
)
def test_redbot(
    tmp_path: Path,
    start: Callable[[Path], AbstractContextManager[Running]],
    rules: str | Path,
    targets: tuple[str, ...],
) -> None:
    with (
        start(tmp_path / "origin") as origin,
        edgeproxy_process(origin.url, tmp_path / "edge", rules=rules) as edge,
    ):
        looks = [
            {"url": base + target, "method": method, "headers": {"Accept-Encoding": "gzip, br"}}
            for number, target in enumerate(targets)
            for method in (("GET",) if number % 4 else ("GET", "HEAD"))
            for base in (origin.url, edge.url, edge.url)
        ]
        results = looked_at(looks)
        worse = []
        for index in range(0, len(looks), 3):
            direct, *through = results[index : index + 3]
            assert direct["complete"], looks[index]
            known = {(where, note) for level, where, note, _ in direct["notes"] if level in WORSE}
            for word, result in zip(("first", "second"), through, strict=True):
                assert (result["complete"], result["status"]) == (True, direct["status"]), looks[index]
                worse += [
                    f"{looks[index]['method']} {looks[index]['url']}, {word} time: {level} {where}: {summary}"
                    for level, where, note, summary in result["notes"]
                    if level in WORSE and (where, note) not in known
                ]
    assert not worse, "\n".join(worse)


def looked_at(looks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What REDbot says of each, in order."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.redbot"],
        input=json.dumps(looks),
        capture_output=True,
        text=True,
        timeout=50,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(results) == len(looks)
    return results


def test_redbot_sees_what_is_wrong(tmp_path: Path) -> None:
    """That no complaint means something."""
    with httpbin(tmp_path) as origin:
        url = f"{origin.url}/response-headers?Expires=never&ETag=a&Cache-Control=max-age%3Dx"
        (result,) = looked_at([{"url": url, "method": "GET", "headers": {}}])
    complained_of = {where for level, where, _, _ in result["notes"] if level in WORSE}
    assert complained_of >= {"field-etag", "field-expires"}
