"""All that one worker asks for before its clients do, put together.

Rules of this file:

- Wiring: what is counted, refreshed ahead, warmed and scheduled is decided in the files beside this one.
- Schedules and the warm start are the first worker's (``first``): the others get from the shared store what
  it has fetched. What is most wanted each worker counts and keeps for itself; whoever needs it adds them up.
- Nobody waits for any of this: not the start, not readiness, no request.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from edgeproxy.warm.ahead import RefreshingAhead
from edgeproxy.warm.asking import Asker
from edgeproxy.warm.plans import plan_sitemap, plan_urls
from edgeproxy.warm.schedule import Schedule
from edgeproxy.warm.tally import Source
from edgeproxy.warm.urls import NotOurs, again_for_url, listed
from edgeproxy.warm.wanted import ROOM, MostWanted
from edgeproxy.warm.wanted_file import encode, merged
from edgeproxy.warm.warmer import ENDED, Busy, Pace, Plan, Warmer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.clock import Clock, Timer
    from edgeproxy.engine.background import Background
    from edgeproxy.engine.handle import Engine
    from edgeproxy.observe.trace import Trace
    from edgeproxy.rules.model import RuleSet, WarmUp
    from edgeproxy.store.base import Store
    from edgeproxy.store.entry import Entry
    from edgeproxy.warm.plans import Fields
    from edgeproxy.warm.tally import WarmTally
    from edgeproxy.warm.wanted import Wanted
    from edgeproxy.warm.wanted_file import WantedFiles
    from edgeproxy.warm.warmer import Job, MayBegin

SAVE = 60.0
"""Seconds between two writings of what is most wanted."""
AT_START = 500
"""What is asked for at the start."""
START_CONCURRENCY = 2
LARGEST_LIST = 8 * 1024 * 1024

log = logging.getLogger("edgeproxy.warm")


class Warming:
    """``files`` None: what is most wanted is forgotten at the end. ``log_trace`` gets the traces of what the
    edge asks for."""

    def __init__(
        self,
        *,
        clock: Clock,
        engine: Engine,
        store: Store,
        background: Background,
        may_begin: MayBegin,
        next_id: Callable[[], str],
        log_trace: Callable[[Trace], None] | None,
        tally: WarmTally,
        files: WantedFiles | None,
        first: bool,
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._background = background
        self._files = files
        self._first = first
        self._timer: Timer | None = None
        self._changed = self._closed = False
        self._last: dict[str, Job] = {}
        self.wanted = MostWanted(clock)
        self.asker = Asker(engine, clock, next_id, log_trace)
        self.warmer = Warmer(
            clock=clock, asker=self.asker, spawn=background.spawn, may_begin=may_begin, tally=tally
        )
        self.ahead = RefreshingAhead(
            clock=clock,
            engine=engine,
            store=store,
            spawn=background.spawn,
            may_begin=may_begin,
            next_id=next_id,
            tally=tally,
        )
        self.schedule = Schedule(clock, self._run_scheduled)

    @property
    def _ruleset(self) -> RuleSet:
        return self._engine.matcher.ruleset

    def asked(self, entry: Entry) -> None:
        """The entry was answered from."""
        if entry.is_part:
            return  # asking again would bring the whole
        self.wanted.asked(entry)
        self.ahead.asked(entry)
        if not self._changed:
            self._changed = True
            if self._files is not None and self._timer is None and not self._closed:
                self._timer = self._clock.call_later(SAVE, self._save_soon)

    # -- from the start to the end ----------------------------------------------------------------------

    async def start(self) -> None:
        """Remember what was most wanted, and ask for it. Run it beside everything else."""
        self.rules_changed()
        if self._files is None:
            return
        now = self._clock.now()
        own = await asyncio.to_thread(self._files.load_own, now)
        self.wanted.keep(own)
        if not self._first:
            return
        others = await asyncio.to_thread(self._files.load_others, now)
        most = merged([own, *others])[:AT_START]
        if most and not self._closed:
            log.info("asking for the %d URLs most wanted before the start", len(most))
            self.warmer.begin(
                f"the {len(most)} most wanted before the start",
                Source.START,
                lambda: _done(Plan(tuple(w.again for w in most))),
                concurrency=START_CONCURRENCY,
            )

    def rules_changed(self) -> None:
        """The rules in force are others than before."""
        self.schedule.set(self._ruleset.warm if self._first else ())

    def close(self) -> None:
        """Begin nothing more, and keep what is most wanted. Blocks for as long as a small file takes."""
        self._closed = True
        self.schedule.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._files is not None and self._changed:
            self._write(self._files, self._octets())

    # -- keeping ----------------------------------------------------------------------------------------

    def _octets(self) -> bytes:
        return encode(self.wanted.top(ROOM, self._engine.matcher), self._clock.now())

    def _save_soon(self) -> None:
        self._timer = None
        self._background.spawn(self.save(), "keep the most wanted")

    async def save(self) -> None:
        """Write what is most wanted."""
        if self._files is None:
            return
        self._changed = False
        await self.wanted.work_out(self._engine.matcher)
        await asyncio.to_thread(self._write, self._files, self._octets())

    @staticmethod
    def _write(files: WantedFiles, octets: bytes) -> None:
        try:
            files.save(octets)
        except OSError as error:
            log.warning("what is most wanted is not kept: %s: %s", files.own, error.strerror)

    async def most_wanted(self, n: int) -> list[Wanted]:
        """Of this worker, and of the others as they last wrote it."""
        await self.wanted.work_out(self._engine.matcher)
        own = self.wanted.top(ROOM, self._engine.matcher)
        others: list[list[Wanted]] = []
        if self._files is not None:
            others = await asyncio.to_thread(self._files.load_others, self._clock.now())
        return merged([own, *others])[:n]

    # -- warm-ups ---------------------------------------------------------------------------------------

    def warm_urls(
        self,
        urls: Sequence[str],
        *,
        host: str = "",
        fields: Fields = (),
        source: Source = Source.ASKED,
        **pace: Unpack[Pace],
    ) -> Job:
        """Raises ValueError and Busy."""
        plan = plan_urls(self._ruleset, urls, host, fields)
        what = f"{len(urls)} URL{'' if len(urls) == 1 else 's'}"
        return self.warmer.begin(what, source, lambda: _done(plan), **pace)

    def warm_sitemap(
        self,
        url: str,
        *,
        hosts: Sequence[str] = (),
        host: str = "",
        fields: Fields = (),
        source: Source = Source.ASKED,
        **pace: Unpack[Pace],
    ) -> Job:
        """Raises ValueError and Busy."""
        try:
            first = again_for_url(url, host, fields)
        except NotOurs as error:
            raise ValueError(f"{url[:200]!r}: {error}") from None
        return self.warmer.begin(
            f"sitemap {first.url}",
            source,
            lambda: plan_sitemap(self.asker, self._ruleset, first, hosts),
            **pace,
        )

    def warm_most_wanted(
        self,
        n: int,
        *,
        source: Source = Source.ASKED,
        **pace: Unpack[Pace],
    ) -> Job:
        """Raises Busy."""

        async def plan() -> Plan:
            return Plan(tuple(w.again for w in await self.most_wanted(n)))

        return self.warmer.begin(f"the {n} most wanted", source, plan, **pace)

    def _run_scheduled(self, up: WarmUp) -> bool:
        last = self._last.get(up.at)
        if last is not None and last.state not in ENDED:
            return False
        try:
            self._last[up.at] = self._scheduled(up)
        except (Busy, ValueError) as error:
            log.warning("the warm-up of %s is left out: %s", up.at, error)
            return False
        return True

    def _scheduled(self, up: WarmUp) -> Job:
        pace = Pace(rate=up.rate, concurrency=up.concurrency)
        if up.sitemap:
            return self.warm_sitemap(up.sitemap, hosts=up.hosts, source=Source.SCHEDULE, **pace)
        if up.most_wanted:
            return self.warm_most_wanted(up.most_wanted, source=Source.SCHEDULE, **pace)
        if up.urls:
            return self.warm_urls(up.urls, source=Source.SCHEDULE, **pace)

        async def plan() -> Plan:
            return plan_urls(self._ruleset, await asyncio.to_thread(_read_list, Path(up.file)))

        return self.warmer.begin(f"the list {up.file}", Source.SCHEDULE, plan, **pace)


async def _done(plan: Plan) -> Plan:
    return plan


def _read_list(path: Path) -> list[str]:
    """Raises ValueError."""
    try:
        with path.open("rb") as stream:
            octets = stream.read(LARGEST_LIST + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if len(octets) > LARGEST_LIST:
        raise ValueError(f"{path}: larger than {LARGEST_LIST // 1024**2} MiB")
    try:
        return listed(octets.decode())
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8") from None
