"""The guided tour: each step asks edgeproxy for something and says what it saw.

Rules of this file:

- A step is one function. It shows the answers that matter, checks them and gives one line of what they
  mean; a check that does not hold raises Unexpected. All steps run, whatever the earlier ones showed,
  and what they depend on they ask for themselves.
- The steps are in STEPS, in order; the one that kills the origin is the last.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import brotli

from edgeproxy.demo.probe import Probe, Seen, Unexpected
from edgeproxy.demo.processes import ANYWHERE, DemoError, Places, running

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.clock import Clock

CLIENTS = 50
PITCH = "/api/pitches/1"
STYLE = "/static/site.css"
LIVE = "/api/live/1?tour"
TRENDING = "/api/pitches/trending?tour"
SEARCH = "/api/search?q=river"
"""Nothing else asks for it, and the query takes long enough for nearly all clients to come while it runs."""
MOST = 40
"""Of the clients, at least so many must have waited for another's fetch."""

Show = Callable[[Seen], None]
Step = Callable[[Probe, Show], Awaitable[str]]


async def miss(probe: Probe, show: Show) -> str:
    seen = await probe.get(PITCH)
    show(seen)
    _expect(seen, "MISS")
    _expect_field(seen, "Cache-Status", "fwd=uri-miss", "stored")
    _expect_equal("requests at the origin", await probe.origin_saw(PITCH), 1)
    return "Nothing was stored: the origin answered, and the answer is kept."


async def hit(probe: Probe, show: Show) -> str:
    first = await probe.get(PITCH)
    before = await probe.origin_saw(PITCH)
    seen = await probe.get(PITCH)
    show(seen)
    _expect(seen, "HIT")
    _expect_field(seen, "Cache-Status", "edgeproxy; hit")
    _expect_true("Age is a number of seconds", seen.field("Age").isdigit())
    _expect_equal("the body", seen.body, first.body)
    _expect_equal("requests at the origin", await probe.origin_saw(PITCH), before)
    return "The same octets from memory; the origin was not asked."


async def compressed(probe: Probe, show: Show) -> str:
    plain = await probe.get(STYLE)
    seen = await probe.get(STYLE, accept_encoding="gzip;q=0.5, br")
    show(seen)
    _expect_equal("Content-Encoding", seen.field("Content-Encoding"), "br")
    _expect_field(seen, "Vary", "accept-encoding")
    _expect_equal("the body, decoded", brotli.decompress(seen.body), plain.body)
    _expect_true("each coding has an ETag of its own", seen.field("ETag") != plain.field("ETag"))
    return f"{len(plain.body):,} octets became {len(seen.body):,}, with an ETag of their own."


async def not_modified(probe: Probe, show: Show) -> str:
    known = await probe.get(STYLE, accept_encoding="br")
    before = await probe.origin_saw(STYLE)
    seen = await probe.get(STYLE, accept_encoding="br", if_none_match=known.field("ETag"))
    show(seen)
    _expect(seen, "HIT", 304)
    _expect_equal("the body", seen.body, b"")
    _expect_equal("requests at the origin", await probe.origin_saw(STYLE), before)
    return f"The client has it already ({known.field('ETag')}): a head and no body."


async def updating(probe: Probe, show: Show) -> str:
    first = _serial(await probe.get(LIVE))
    stale = await probe.until(LIVE, "UPDATING", lambda seen: seen.word == "UPDATING")
    show(stale)
    _expect(stale, "UPDATING")
    _expect_true("numbers do not go back", _serial(stale) >= first)
    fresh = await probe.until(LIVE, "a newer HIT", lambda s: s.word == "HIT" and _serial(s) > _serial(stale))
    show(fresh)
    return f"Number {_serial(stale)} was served at once while number {_serial(fresh)} was fetched."


async def tag_purge(probe: Probe, show: Show) -> str:
    await probe.get(PITCH)
    _expect(await probe.get(PITCH), "HIT")
    before = await probe.origin_saw(PITCH)
    await probe.purge(tag="pitch:1")
    seen = await probe.get(PITCH)
    show(seen)
    _expect(seen, "MISS")
    _expect_equal("requests at the origin", await probe.origin_saw(PITCH), before + 1)
    return 'After {"tag": "pitch:1"}, what carried that tag is gone.'


async def write(probe: Probe, show: Show) -> str:
    await probe.get(PITCH)
    title = "Renamed on the tour"
    written = await probe.ask("PUT", PITCH, json={"title": title})
    show(written)
    _expect(written, "BYPASS")
    seen = await probe.get(PITCH)
    show(seen)
    _expect(seen, "MISS")
    _expect_equal("the title", json.loads(seen.body)["title"], title)
    return "The PUT went through and took the stored pitch with it."


async def coalesced(probe: Probe, show: Show) -> str:
    before = await probe.origin_saw(SEARCH)
    answers = await probe.together(SEARCH, CLIENTS)
    reached = await probe.origin_saw(SEARCH) - before
    waited = [seen for seen in answers if is_collapsed(seen)]
    show(next(iter(waited), answers[0]))
    words = Counter(seen.word for seen in answers)
    told = ", ".join(f"{number} {word}" for word, number in sorted(words.items()))
    _expect_equal("statuses", {seen.status for seen in answers}, {200})
    _expect_equal("different bodies", len({seen.body for seen in answers}), 1)
    _expect_equal("requests at the origin", reached, 1)
    _expect_true(
        f"at least {MOST} of {CLIENTS} waited for one fetch: {len(waited)} did ({told})", len(waited) >= MOST
    )
    return (
        f"{CLIENTS} clients at once, {reached} request at the origin, one body ({told}): "
        f"{len(waited)} waited for that one fetch (collapsed)."
    )


async def origin_gone(probe: Probe, show: Show) -> str:
    kept = await probe.get(TRENDING)
    _expect_equal("status", kept.status, 200)
    await probe.kill_origin()
    seen = await probe.until(TRENDING, "STALE", lambda answer: answer.word == "STALE")
    show(seen)
    _expect(seen, "STALE")
    _expect_equal("the body", seen.body, kept.body)
    lost = await probe.get("/api/search?q=never%20asked")
    show(lost)
    _expect_equal("status of what is not stored", lost.status, 502)
    _expect_field(lost, "Content-Type", "application/problem+json")
    return "The origin was killed: what is stored goes on, the rest is an honest 502."


STEPS: tuple[tuple[str, Step], ...] = (
    ("miss", miss),
    ("hit", hit),
    ("brotli", compressed),
    ("not modified", not_modified),
    ("stale while revalidating", updating),
    ("tag purge", tag_purge),
    ("write invalidates", write),
    (f"{CLIENTS} clients, one fetch", coalesced),
    ("origin killed", origin_gone),
)


async def tour(
    environment: Mapping[str, str], shipped_rules: Path, clock: Clock, places: Places = ANYWHERE
) -> int:
    """Run all steps and print what they saw; 0, or 1 when one did not show what it should."""
    with TemporaryDirectory(prefix="edgeproxy-tour-") as name:
        directory = Path(name)
        try:
            rules = _rules(directory, shipped_rules)
            async with running(directory, environment, clock, rules, places) as both:
                print(f"edgeproxy on {both.url} in front of the demo origin on {both.origin_url}")
                async with Probe(both, clock) as probe:
                    failed = [title for title, step in STEPS if not await _run(title, step, probe)]
                ended_well = both.edge.alive()
                log = both.edge.tail()
        except DemoError as error:
            print(error)
            return 1
    if not ended_well:
        failed.append("edgeproxy ended on its own")
    if failed:
        print(f"\nNot as it should be: {', '.join(failed)}.\n\nThe end of edgeproxy's log:\n{log}")
        return 1
    print(f"\nAll {len(STEPS)} steps showed what they should.")
    return 0


async def _run(title: str, step: Step, probe: Probe) -> bool:
    print(f"\n{title}")
    try:
        meaning = await step(probe, print_seen)
    except Unexpected as error:
        print(f"  NOT AS IT SHOULD BE: {error}")
        return False
    print(f"  {meaning}")
    return True


def print_seen(seen: Seen) -> None:
    print(
        f"  {seen.request:<38} {seen.status} {seen.word:<11} Age {seen.field('Age'):>3} "
        f"{seen.seconds * 1000:8.1f} ms"
    )
    for name in ("Content-Encoding", "Cache-Status", "Server-Timing"):
        if name in seen.fields:
            print(f"    {name + ':':<17} {seen.field(name)}")


def _rules(directory: Path, shipped: Path) -> Path:
    """Make a directory of the tour's own rules, which go first, and the shipped ones."""
    made = directory / "rules"
    made.mkdir()
    for file in files("edgeproxy.demo").joinpath("rules").iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    for path in sorted(shipped.glob("*.y*ml")):
        shutil.copy(path, made / path.name)
    return made


def is_collapsed(seen: Seen) -> bool:
    """Whether it came of a fetch that another request had begun (RFC 9211 §2.7)."""
    return "collapsed" in [part.strip() for part in seen.field("Cache-Status").split(";")]


def _serial(seen: Seen) -> int:
    _expect_equal("status", seen.status, 200)
    return int(json.loads(seen.body)["serial"])


def _expect(seen: Seen, word: str, status: int = 200) -> None:
    if (seen.word, seen.status) != (word, status):
        raise Unexpected(f"{seen.request}: expected {status} {word}, saw {seen.status} {seen.word}")


def _expect_field(seen: Seen, name: str, *parts: str) -> None:
    value = seen.field(name)
    for part in parts:
        if part.lower() not in value.lower():
            raise Unexpected(f"{seen.request}: expected {part!r} in {name}, saw {value!r}")


def _expect_equal(what: str, seen: object, wanted: object) -> None:
    if seen != wanted:
        raise Unexpected(f"{what}: expected {str(wanted)[:100]}, saw {str(seen)[:100]}")


def _expect_true(what: str, holds: bool) -> None:  # noqa: FBT001
    if not holds:
        raise Unexpected(f"it does not hold that {what}")
