"""``edgeproxy replay``: what the traffic of an access log would have cost under other rules.

Rules of this file:

- One pass, a line at a time. Lines are written when answers are out: a short queue puts them in the order in
  which the requests came.
- Under each rule stand the same requests: what the log says of them, and what each rule set would have made
  of them.
"""

from __future__ import annotations

import heapq
import json
from typing import TYPE_CHECKING, Any

from edgeproxy import settings
from edgeproxy.cli.given import A_LOG, add_format, is_a_log, read_rules, say_refused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from edgeproxy.cli.logged import Log
    from edgeproxy.rules.seen import Seen
    from edgeproxy.rules.simulate import Simulation, Sums

QUEUE = 10_000
"""Lines that wait to be put in order."""
MEMORY = "256MiB"

_NOTES = (
    "not in the log, so not counted: Vary, the request's Cache-Control, an answer's no-cache, purges by hand",
    "not played: refresh_ahead and warming, whose requests the log has no lines for",
)
_COLUMNS = (
    "", "requests", "hits", "ratio", "waited", "stale", "origin", "from cache", "from origin", "saved",
    "worst age", "unknown",
)  # fmt: skip


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "replay",
        help="say what logged traffic would have cost under other rules",
        description="Play an access log against a rule set, in a cache that holds no bodies. Printed for "
        "each rule, beside what the log says happened: requests, hits and their share of all of them (passed "
        "ones too: other rules pass others), requests that waited for another's fetch, stale answers while "
        "the origin failed, origin requests, bytes, origin seconds saved and the worst age served. What the "
        "log does not tell counts as unknown and is asked of the origin: hits are a lower bound. Nothing is "
        "sent anywhere.",
        epilog="Exit 0: done; 2: wrong usage, or rules or a log that cannot be read.",
    )
    parser.add_argument("log", metavar="ACCESSLOG", help=A_LOG)
    parser.add_argument("--rules", metavar="DIR|none", help="default: the shipped rules")
    parser.add_argument(
        "--against", metavar="OLD", help="the rules in force when the log was written, to play beside"
    )
    parser.add_argument(
        "--memory", default=MEMORY, metavar="SIZE", help=f"what the cache may hold; default {MEMORY}"
    )
    add_format(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from edgeproxy.cli.logged import Log  # noqa: PLC0415 - what only this command needs
    from edgeproxy.observe.access_log import MASK  # noqa: PLC0415
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415
    from edgeproxy.rules.simulate import Simulation  # noqa: PLC0415
    from edgeproxy.store.entry import OVERHEAD  # noqa: PLC0415

    log = Log(args.log)
    try:
        memory = _size(args.memory)
        given = args.rules if args.rules is not None else settings.environment().get("EDGEPROXY_RULES", "")
        new = read_rules(settings.rules_directory(given))
        old = None if args.against is None else read_rules(settings.rules_directory(args.against))
        then = {rule.name: rule for rule in (old or new).rules}
        sides = {"rules": Simulation(new, memory=memory, then=then, mask=MASK, overhead=OVERHEAD)}
        if old is not None:
            sides["against"] = Simulation(old, memory=memory, then=then, mask=MASK, overhead=OVERHEAD)
        replay = Replay(sides)
        replay.play(log)
    except (settings.SettingsError, RuleError) as error:
        say_refused(error)
        return 2
    if not is_a_log(log):
        return 2
    if args.format == "json":
        print(json.dumps(replay.to_json(log), indent=2))
    else:
        print("\n".join(replay.text(log)))
    return 0


class Replay:
    """``sides``: "rules", whose rule names the rows, and perhaps "against"."""

    def __init__(self, sides: dict[str, Simulation]) -> None:
        self._sides = sides
        self.sums: dict[str, dict[str, Sums]] = {}
        """Rule -> "log" and each side -> what the same requests came to."""
        self.began = self.ended = 0.0

    def play(self, log: Iterable[Seen]) -> None:
        from edgeproxy.rules.simulate import Sums  # noqa: PLC0415

        sides = self._sides
        for seen in in_order(log):
            self.began = self.began or seen.time
            self.ended = max(self.ended, seen.time)
            name = sides["rules"].rule_of(seen)
            row = self.sums.get(name)
            if row is None:
                row = self.sums[name] = {word: Sums() for word in ("log", *reversed(sides))}
            _as_logged(seen, row["log"])
            for word, side in sides.items():
                side.see(seen, row[word])

    def total(self) -> dict[str, Sums]:
        from edgeproxy.rules.simulate import Sums  # noqa: PLC0415

        whole = {word: Sums() for word in ("log", *reversed(self._sides))}
        for row in self.sums.values():
            for word, sums in row.items():
                whole[word].add(sums)
        return whole

    def rows(self) -> Iterator[tuple[str, dict[str, Sums]]]:
        """Those with the most requests first."""
        yield from sorted(self.sums.items(), key=lambda item: (-item[1]["log"].requests, item[0]))

    def to_json(self, log: Log) -> dict[str, Any]:
        return {
            "log": log.to_json(),
            "seconds": round(self.ended - self.began, 3),
            "evicted": {word: side.evicted for word, side in self._sides.items()},
            "total": {word: _json(sums) for word, sums in self.total().items()},
            "rules": {name: {word: _json(sums) for word, sums in row.items()} for name, row in self.rows()},
            "notes": [*log.notes(), *_NOTES],
        }

    def text(self, log: Log) -> Iterator[str]:
        from edgeproxy.rules.values import show_duration  # noqa: PLC0415

        span = show_duration(round(self.ended - self.began))
        yield f"{log.lines - log.unread:,} requests in {span}"
        yield ""
        table: list[tuple[str, ...]] = [_COLUMNS]
        for name, row in (*self.rows(), ("total", self.total())):
            table.append((name, *("" for _ in _COLUMNS[1:])))
            table += [(f"  {word}", *_cells(sums, logged=word == "log")) for word, sums in row.items()]
        widths = [max(len(line[i]) for line in table) for i in range(len(_COLUMNS))]
        for line in table:
            rest = "  ".join(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
            yield f"{line[0].ljust(widths[0])}  {rest}".rstrip()
        yield ""
        for word, side in self._sides.items():
            if side.evicted:
                yield f"note: {word}: {side.evicted:,} answers had to go for others (--memory)"
        for note in (*log.notes(), *_NOTES):
            yield f"note: {note}"


def in_order(log: Iterable[Seen]) -> Iterator[Seen]:
    """By the time at which the requests came, as far as QUEUE lines can tell."""
    queue: list[tuple[float, int, Seen]] = []
    for number, seen in enumerate(log):
        item = (seen.time, number, seen)
        if len(queue) < QUEUE:
            heapq.heappush(queue, item)
        else:
            yield heapq.heappushpop(queue, item)[2]
    while queue:
        yield heapq.heappop(queue)[2]


def _as_logged(seen: Seen, sums: Sums) -> None:
    """What really happened. Refreshes in the background have no lines of their own."""
    sums.requests += 1
    if seen.word in ("HIT", "UPDATING"):
        sums.hits += 1
        sums.served(seen.size, seen.age, 0.0)
    elif seen.collapsed:
        sums.waited += 1
        sums.served(seen.size, seen.age, 0.0)
    elif seen.word in ("STALE", "REVALIDATED"):
        sums.stale += seen.word == "STALE"
        sums.origin += 1
        sums.served(seen.size, seen.age, 0.0)
    elif seen.tier != "edge" or seen.origin_seconds:
        sums.fetched(seen.size)


def _size(text: str) -> int:
    try:
        return settings.size(text)
    except ValueError as error:
        raise settings.SettingsError(f"--memory: {error}") from None


def _json(sums: Sums) -> dict[str, float | int]:
    return {
        "requests": sums.requests,
        "hits": sums.hits,
        "hit_ratio": round(sums.hits / sums.requests, 4) if sums.requests else 0.0,
        "waited": sums.waited,
        "stale": sums.stale,
        "origin_requests": sums.origin,
        "cache_bytes": sums.cache_bytes,
        "origin_bytes": sums.origin_bytes,
        "origin_seconds_saved": round(sums.saved, 3),
        "worst_age": round(sums.worst_age, 3),
        "unknown": sums.unknown,
    }


def _cells(sums: Sums, *, logged: bool) -> tuple[str, ...]:
    ratio = f"{sums.hits / sums.requests:.1%}" if sums.requests else "-"
    return (
        f"{sums.requests:,}", f"{sums.hits:,}", ratio, f"{sums.waited:,}", f"{sums.stale:,}",
        f"{sums.origin:,}", _bytes(sums.cache_bytes), _bytes(sums.origin_bytes),
        "-" if logged else f"{sums.saved:,.1f} s", f"{sums.worst_age:,.0f} s",
        "-" if logged else f"{sums.unknown:,}",
    )  # fmt: skip


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
