"""How a worker is doing right now, for the admin page and ``top``; told by one worker, added over several.

Rules of this file:

- A Pulse is plain data that goes through JSON: histograms as Times.told(), never percentiles, which cannot be
  added. Only ``view`` makes percentiles of them, once, of the sum.
- ``view`` gives times in seconds, sizes in octets, points in time in seconds since the epoch, and null where
  there is nothing to tell.
- Nothing is gathered for it while nobody looks: percentiles.py keeps the last hour as it is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from edgeproxy.observe import merge, troubles
from edgeproxy.observe.percentiles import STEP, WINDOWS
from edgeproxy.observe.times import Times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.observe.percentiles import Percentiles

Pulse = dict[str, Any]

SPANS = {name: float(seconds * (slots - 1)) for name, seconds, slots in WINDOWS}
"""Window -> the seconds that it covers at least."""
SHOWN = (50, 95, 99)
WANTED = 20
"""URLs among the most wanted that are told."""
BATCH = 8
"""Rules or slots that are worked out between two turns of the loop: clients come first."""


async def gather(percentiles: Percentiles, after: int, window: str, *, tables: bool) -> Pulse:
    """What the percentiles know: the slots behind number ``after``, and with ``tables`` each rule over
    ``window``. Raises KeyError for a window that there is not."""
    pulse: Pulse = {"slots": [], "rules": {}}
    for number, slot in enumerate(percentiles.recent(after)):
        if number % (4 * BATCH) == 4 * BATCH - 1:
            await asyncio.sleep(0)
        pulse["slots"].append([slot[0], *slot[1].told()])
    if tables:
        for number, (name, times) in enumerate(percentiles.within(window)):
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(0)
            pulse["rules"][name] = times.told()
    return pulse


def merged(workers: Sequence[Pulse]) -> Pulse:
    """Several workers as one. Raises what Times.of raises for what is no pulse."""
    if len(workers) == 1:
        return workers[0]
    slots: dict[int, Times] = {}
    rules: dict[str, Times] = {}
    wanted: dict[tuple[str, str], float] = {}
    for one in workers:
        for number, *slot in one["slots"]:
            slots.setdefault(number, Times()).add(Times.of(slot))
        for name, times in one["rules"].items():
            rules.setdefault(name, Times()).add(Times.of(times))
        for url, rule, weight in one.get("wanted", ()):
            wanted[url, rule] = wanted.get((url, rule), 0.0) + weight
    told: Pulse = {
        "slots": [[number, *slots[number].told()] for number in sorted(slots)],
        "rules": {name: together.told() for name, together in rules.items()},
    }
    if all("facts" in one for one in workers):
        heaviest = sorted(((*key, weight) for key, weight in wanted.items()), key=lambda each: -each[2])
        told["wanted"] = [list(each) for each in heaviest[:WANTED]]
        told["troubles"] = troubles.merged(one["troubles"] for one in workers)
        told["facts"] = merge.merge_stats([one["facts"] for one in workers])
    return told


async def view(pulse: Pulse, window: str, now: float) -> dict[str, Any]:
    """For people: ``history`` (oldest first), and where the pulse has tables, ``all`` and ``rules`` over
    ``window``, ``wanted``, ``troubles``, ``origins`` and ``store``."""
    told: dict[str, Any] = {"now": now, "step": STEP, "window": window, "window_seconds": SPANS[window]}
    history = []
    for count, (number, *slot) in enumerate(pulse["slots"]):
        if count % BATCH == BATCH - 1:
            await asyncio.sleep(0)
        history.append({"at": number * STEP, **_row(Times.of(slot))})
    told["history"] = history
    facts: dict[str, Any] | None = pulse.get("facts")
    if facts is None:
        return told
    together = Times()
    rules = []
    for count, (name, slot) in enumerate(pulse["rules"].items()):
        if count % BATCH == BATCH - 1:
            await asyncio.sleep(0)
        times = Times.of(slot)
        together.add(times)
        rules.append({"name": name, **_row(times)})
    told["all"] = _row(together)
    told["rules"] = sorted(rules, key=lambda row: (-row["requests"], row["name"]))
    told["wanted"] = [{"url": url, "rule": rule, "weight": round(w, 2)} for url, rule, w in pulse["wanted"]]
    told["troubles"] = pulse["troubles"]
    told["origins"] = [
        {"pool": pool, "origin": origin, **row}
        for pool, rows in facts.get("origins", {}).items()
        for origin, row in rows.items()
    ]
    told |= {name: value for name, value in facts.items() if name != "origins"}
    return told


def _row(times: Times) -> dict[str, Any]:
    ratio = times.hit_ratio
    row: dict[str, Any] = {
        "requests": times.requests,
        "hits": times.hits,
        "passes": min(times.passes, times.requests - times.hits),
        "errors": times.errors,
        "bytes": times.octets,
        "saved_seconds": round(times.saved, 3),
        "hit_ratio": None if ratio is None else round(ratio, 4),
    }
    found = times.percentiles(*SHOWN) if times.requests else [None] * len(SHOWN)
    for percent, seconds in zip(SHOWN, found, strict=True):
        row[f"p{percent}"] = None if seconds is None else round(seconds, 6)
    return row
