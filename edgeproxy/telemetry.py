"""What a worker tells of itself: numbers, latencies, troubles, the access log, spans.

Rules of this file: all of it is read off the Trace of a request that has ended, in the order of
``observers``. Where something is not wanted it is None, and costs nothing.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.front.traced import Sampling
from edgeproxy.observe.access_log import AccessLog
from edgeproxy.observe.metrics import Metrics
from edgeproxy.observe.percentiles import Percentiles
from edgeproxy.observe.troubles import Troubles
from edgeproxy.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgeproxy.clock import Clock
    from edgeproxy.front.followed import Followed
    from edgeproxy.observe.spans import Spans
    from edgeproxy.observe.trace import Trace
    from edgeproxy.settings import HandedDown, Settings


class Telemetry:
    """Counts from the start; writes and exports once it is open."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.metrics = Metrics(clock)
        self.percentiles = Percentiles(clock.now, self.metrics.tally.counted)
        self.troubles = Troubles(clock.now)
        self.access_log: AccessLog | None = None
        self.spans: Spans | None = None
        self.sampling: Sampling | None = None

    def open(self, settings: Settings, handed: HandedDown | None, followed: Followed) -> None:
        """``followed``: whose traces are taken over. Raises SettingsError where what is wanted cannot be
        had."""
        self.access_log = _access_log(settings, self._clock, handed)
        if settings.otlp:
            self.spans = _spans(settings, self._clock)
            self.sampling = Sampling(settings.trace_sample, random.random, followed)

    async def close(self) -> None:
        try:
            if self.access_log is not None:
                self.access_log.close()
        finally:
            if self.spans is not None:
                await asyncio.to_thread(self.spans.close)

    def set_rules(self, names: Iterable[str]) -> None:
        """From now on these rules are told of, each by its name."""
        known = tuple(names)
        self.metrics.set_rules(known)
        self.percentiles.set_rules(known)

    def observers(self) -> list[Callable[[Trace], None]]:
        """Those who read the Trace of each request."""
        percentiles, troubles = self.percentiles, self.troubles

        def timed(trace: Trace) -> None:
            if trace.status != 101:  # how long a WebSocket was open is no latency
                percentiles.observe(trace.rule, trace.seconds, trace.hit)
            if trace.status > 499 or trace.failure is not None:
                troubles.note(trace)

        # The percentiles take over what the metrics had counted before this request.
        observers = [timed, self.metrics.observe]
        if self.access_log is not None:
            observers.append(self.access_log.write)
        if self.spans is not None:
            observers.append(self.spans.finish)
        return observers


def _access_log(settings: Settings, clock: Clock, handed: HandedDown | None) -> AccessLog | None:
    where = settings.access_log
    if where == "off" or settings.access_log_sample == 0:
        return None
    try:
        path = None if where == "-" else Path(where)
        turns = None if handed is None else Path(handed.directory) / "access-log-turns"
        return AccessLog(clock, path, sample=settings.access_log_sample, turns=turns)
    except OSError as error:
        raise SettingsError(f"--access-log: {where}: {error.strerror}") from None


def _spans(settings: Settings, clock: Clock) -> Spans:
    try:
        from edgeproxy.observe.spans import Spans  # noqa: PLC0415 - an extra, and dear to import
    except ImportError:
        raise SettingsError(
            "--otlp: OpenTelemetry is not installed here: pip install 'edgeproxy[otel]'"
        ) from None
    return Spans(clock, settings.otlp, settings.name)
