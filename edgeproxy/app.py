"""Builds one worker: every part made once, handed what it needs, started in order, ended in reverse.

Rules of this file: wiring only. No part is imported by another to find it; nothing here decides anything
about HTTP. Tests build a worker with a driven clock and run it in their own loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import socket
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.admin.api import make_admin
from edgeproxy.admin.control import State
from edgeproxy.admin.listener import AdminListener
from edgeproxy.admin.private import make_private
from edgeproxy.alerting.begin import planned
from edgeproxy.clock import Clock
from edgeproxy.earned.ledger import Ledger
from edgeproxy.engine.aside import considerate
from edgeproxy.engine.background import Background
from edgeproxy.engine.forward import ForwardBuilder
from edgeproxy.engine.handle import Engine
from edgeproxy.engine.overload import Overload
from edgeproxy.from_settings import (
    admin_auth,
    admin_tls,
    bind,
    board,
    buckets,
    check_store,
    edge_fields,
    given,
    node_id,
    purge_limit,
    rule_history,
    shares,
    site,
    state_dir,
    terms,
    tls_of,
)
from edgeproxy.front.arrival import Arrivals
from edgeproxy.front.compress import Compressor
from edgeproxy.front.doors import Doors
from edgeproxy.front.followed import Followed
from edgeproxy.front.handler import Handler
from edgeproxy.front.heads import Heads
from edgeproxy.front.lane import Lane
from edgeproxy.front.parting import Idle
from edgeproxy.front.respond import Responder
from edgeproxy.front.sampled import SampledLane
from edgeproxy.front.server import EdgeServer, verify
from edgeproxy.front.short import ShortWay
from edgeproxy.front.traced import TracedLane, TracedShortWay
from edgeproxy.front.trust import Trust
from edgeproxy.front.unread import hold_little
from edgeproxy.front.websockets import WebSockets
from edgeproxy.networks import Networks
from edgeproxy.observe.access_log import mask
from edgeproxy.operate import Operator
from edgeproxy.origin.descriptors import Descriptors
from edgeproxy.origin.pools import Pools
from edgeproxy.origin.turns import Turns
from edgeproxy.rules.history import InForce, Order
from edgeproxy.rules.taken import NOTHING, take
from edgeproxy.settings import SettingsError
from edgeproxy.store.open import open_store
from edgeproxy.telemetry import Telemetry
from edgeproxy.warm.service import Warming
from edgeproxy.warm.wanted_file import WantedFiles

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgeproxy.front.handshake import TlsListener
    from edgeproxy.origin.base import Purpose
    from edgeproxy.rules.taken import Taken
    from edgeproxy.settings import HandedDown, Settings

log = logging.getLogger("edgeproxy")

BACKLOG = 4096
LOOK = 0.05
"""Seconds between two looks whether a worker that drains still has connections."""


class Worker:
    """One worker. ``listen`` and ``admin`` replace the sockets that the settings would have it bind. With
    ``handed`` it is one of several: its admin application is on its own socket, for the parent alone.
    ``chance`` gives 0 to 1: pauses and choices among origins hang on it."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        listen: socket.socket | None = None,
        admin: socket.socket | None = None,
        handed: HandedDown | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self._chance = chance
        self.clock = clock or Clock()
        self._listen = listen
        self._admin = admin
        self._handed = handed
        self.state = State.STARTING
        self.background = Background()
        self.telemetry = Telemetry(self.clock)
        self.metrics, self.percentiles = self.telemetry.metrics, self.telemetry.percentiles

    async def start(self) -> None:
        """Serve. Raises SettingsError for what is wrong with the settings, RuleError with the rules,
        OSError where an address cannot be had."""
        verify()
        settings, handed = self.settings, self._handed
        check_store(settings)
        auth = admin_auth(settings) if handed is None else None
        alerting = planned(settings) if handed is None else None
        in_force = None
        if settings.rules is not None and handed is None:
            in_force = InForce(settings.rules, rule_history(settings))
        self.certificates = tls_of(settings)
        admin_certificates = admin_tls(settings) if handed is None else None
        with considerate():
            taken = self._first_rules(in_force)
        listen = self._listen or bind(settings.listen.host, settings.listen.port, "--listen")
        admin = None
        if handed is None:
            admin = self._admin or bind(settings.admin.host, settings.admin.port, "--admin")
        await self._open_store(listen)
        self._open_origin(taken)
        self._make_flow(taken)
        self._make_fast_ways(taken)
        self._make_server()
        self.operator = Operator(self, in_force, taken)
        self._tell_of_parts()
        self.alerts = None
        if alerting is not None:
            self.alerts = alerting.begin(self.operator, self.clock, self.background.spawn)
        if self.alerts is not None:
            self.operator.alerts = self.alerts
            self.metrics.add_source("alerts", self.alerts.numbers)
        if handed is not None:
            self.admin = AdminListener(make_private(self.operator, self.clock))
            await self.admin.serve_path(Path(handed.control))
        else:
            self.admin = AdminListener(
                make_admin(
                    self.operator, auth, self.clock, background=self.background, purges=purge_limit(settings)
                )
            )
        if admin is not None:
            await self.admin.serve(admin, admin_certificates, self.clock)
            self.admin_port = self.admin.port
        await self._accept(listen)
        self.state = State.READY
        self.background.spawn(self.warming.start(), "warm start")

    # -- the parts, in the order in which they are made --------------------------------------------------

    async def _open_store(self, listen: socket.socket) -> None:
        settings, handed = self.settings, self._handed
        self.store = await open_store(
            settings.store,
            clock=self.clock,
            spawn=self.background.spawn,
            state_dir=state_dir(settings, handed),
            l1_bytes=settings.memory // (1 if handed is None else settings.workers),
            l2_bytes=settings.store_size,
            budget=settings.store_budget,
            node=settings.node or f"{socket.gethostname()}:{listen.getsockname()[1]}",
            l1_lease=settings.l1_lease,
            purge_wait=settings.purge_wait,
            together=None if handed is None else Path(handed.directory),
        )
        if handed is not None and not self.store.table.is_shared:
            raise SettingsError(f"--workers: the purge table cannot be shared: {self.store.degraded}")

    def _open_origin(self, taken: Taken) -> None:
        self.shares = shares(self.settings)
        self.given = given(self.settings, self.shares.concurrent)
        self._board = board(self._handed)
        self.origin = Pools(
            self.given.completed(taken.pools),
            clock=self.clock,
            spawn=self.background.spawn,
            turns=Turns(None if self._handed is None else self._handed.directory),
            chance=self._chance,
            board=self._board,
            descriptors=Descriptors(self.shares.origins),
        )

    def _make_flow(self, taken: Taken) -> None:
        """The flow and the handler before it, with what is told of both."""
        settings, clock = self.settings, self.clock
        self._forward = ForwardBuilder(
            settings.name, settings.origin_host, node_id(settings), settings.forwarded_fields
        )
        self._followed = Followed(settings.trace_from, settings.trusted_proxies)
        self._buckets = buckets(self._handed)
        self._trust = Trust(settings.trusted_proxies) if settings.trusted_proxies else None
        self._overload = Overload(clock, most=settings.max_requests, lag=settings.max_lag)
        self.engine = Engine(
            clock=clock,
            store=self.store,
            origin=self.origin,
            background=self.background,
            forward=self._forward,
            matcher=taken.matcher,
            leases=self.store.leases,
            least=settings.min_rate,
            overload=self._overload,
            buckets=self._buckets,
        )
        telemetry = self.telemetry
        telemetry.open(settings, self._handed, self._followed)
        self.ledger = Ledger(clock, self.store.memory.holds)
        self.engine.observed_by(self.ledger)
        self.compressor = Compressor(self.background, self.store.update)
        self.handler = Handler(
            engine=self.engine,
            responder=Responder(edge_fields(settings), clock),
            compressor=self.compressor,
            clock=clock,
            next_id=request_ids(),
            observers=telemetry.observers(),
            max_body=settings.max_body,
            trust=self._trust,
            followed=self._followed,
            terms=terms(settings, self.shares.clients),
            websockets=WebSockets(clock, self.metrics.sockets, settings.websockets),
        )
        self.handler.sampling = telemetry.sampling
        self._overload.in_flight = self._requests_under_way
        self.warming = self._warming()
        self.handler.asked = self.warming.asked

    def _make_fast_ways(self, taken: Taken) -> None:
        """The lane and the short way."""
        sampling = self.telemetry.sampling
        self._whole_lane = self._lane()
        self.under(taken)
        if not self.settings.lane:
            return
        short: Callable[..., ShortWay] = ShortWay
        if sampling is not None:
            short = partial(TracedShortWay, sampling)
        self.handler.short = short(
            handler=self.handler,
            engine=self.engine,
            forward=self._forward,
            authority=self.origin.authority,
            background=self.background,
            compressor=self.compressor,
            next_id=request_ids(),
            trust=self._trust,
        )

    def _make_server(self) -> None:
        settings = self.settings
        self.doors = Doors(self.handler.terms)
        self.heads = Heads(self.clock, settings.head_timeout)
        self.server = EdgeServer(
            self.handler,
            doors=self.doors,
            heads=self.heads,
            least=settings.min_rate,
            keepalive_timeout=settings.keepalive,
            access_log=None,
            auto_decompress=False,
            max_line_size=settings.max_head,
            lingering_time=2.0,
        )

    def _tell_of_parts(self) -> None:
        metrics, access_log = self.metrics, self.telemetry.access_log
        metrics.add_source("store", self.operator.store_numbers)
        metrics.add_source("origin", self.operator.origin_numbers)
        metrics.add_source("request_bodies", lambda: {"held_bytes": self.engine.contents.held})
        metrics.add_source("connections", self._connection_numbers)
        metrics.add_source("overload", self._overload.numbers)
        metrics.add_source("loop", lambda: {"tasks": len(asyncio.all_tasks())})
        metrics.origins = self.operator.origin_rows
        if access_log is not None:
            metrics.add_source("access_log", access_log.stats)

    async def _accept(self, listen: socket.socket) -> None:
        settings, certificates = self.settings, self.certificates
        arrivals = None
        if settings.proxy_protocol or certificates is not None:
            arrivals = self.arrivals = Arrivals(
                self.server,
                spawn=self.background.spawn,
                certificates=certificates,
                proxies=Networks(settings.proxy_protocol),
                seconds=settings.head_timeout,
            )
            self.metrics.add_source("arrivals", arrivals.numbers)
        if certificates is not None:
            certificates.watch(self.clock)
            self.metrics.add_source("tls", certificates.numbers)
        hold_little(listen)
        self.port = int(listen.getsockname()[1])
        self._listening: TlsListener | asyncio.Server
        if arrivals is not None:
            self._listening = await arrivals.listen(listen, BACKLOG)
        else:
            loop = asyncio.get_running_loop()
            self._listening = await loop.create_server(self.server.arrive, sock=listen, backlog=BACKLOG)

    def _connection_numbers(self) -> dict[str, int]:
        return {**self.doors.numbers(), **self.heads.numbers()}

    def _requests_under_way(self) -> int:
        """WebSockets have limits of their own."""
        return self.handler.in_flight - len(self.handler.websockets)

    def _first_rules(self, in_force: InForce | None) -> Taken:
        """Raises RuleError."""
        handed = self._handed
        if in_force is not None:
            wanted = in_force.wanted()
            taken = take(wanted, NOTHING, mask)
            in_force.record(wanted, taken, at=self.clock.now(), how="start", by="")
            return taken
        if handed is None or handed.rules is None:
            return NOTHING
        candidate = None if handed.candidate is None else Path(handed.candidate)
        order = Order(Path(handed.rules), candidate, handed.percent, handed.sample)
        return take(order.wanted(), NOTHING, mask)

    def under(self, taken: Taken) -> None:
        """From now on the worker is under these rules: what is remembered for those before is forgotten."""
        handler, lane = self.handler, self._whole_lane
        handler.rules_version = taken.mark
        if lane is not None and not handler.draining:
            lane.rules(taken.rules)
            handler.lane = lane if taken.differences is None else SampledLane(lane, taken.differences)
        self.telemetry.set_rules(r.name for r in taken.rules)

    def _warming(self) -> Warming:
        settings, origin, access_log = self.settings, self.origin, self.telemetry.access_log
        slot = 0 if self._handed is None else self._handed.slot
        files = None
        if settings.warm_start:
            files = WantedFiles(settings.cache_dir, f"most-wanted-{site(settings)}", slot)

        def may_begin(_: Purpose) -> bool:
            """Work of our own leaves a quarter of the places at the origin to clients."""
            if self.engine.overload.shedding:
                return False
            return origin.queued == 0 and origin.in_flight * 4 < self.shares.concurrent * 3

        return Warming(
            clock=self.clock,
            engine=self.engine,
            store=self.store,
            background=self.background,
            may_begin=may_begin,
            next_id=request_ids(),
            log_trace=None if access_log is None else access_log.write,
            tally=self.metrics.warm,
            files=files,
            first=slot == 0,
        )

    def _lane(self) -> Lane | None:
        if not self.settings.lane or "x-response-time" in self.settings.show_fields:
            return None
        sampling = self.telemetry.sampling
        make: Callable[..., Lane] = Lane if sampling is None else partial(TracedLane, sampling)
        return make(
            clock=self.clock,
            memory=self.store.memory,
            words=self.store.table.words,
            responder=self.handler.responder,
            metrics=self.metrics,
            percentiles=self.percentiles,
            next_id=request_ids(),
            log=self.telemetry.access_log,
            hot=self.compressor.hot,
            asked=self.warming.asked,
            unsure=self._followed.unsure,
        )

    @property
    def memory_alone(self) -> bool:
        """A shared store was wanted and could not be opened."""
        return self.store.shared is None and bool(self.store.degraded)

    # -- the end ----------------------------------------------------------------------------------------

    async def drain(self, grace: float = 0.0, delay: float = 0.0) -> None:
        """Not ready at once; ``delay`` seconds later accept no more; let what is under way end, up to the
        drain timeout. Idle connections are still answered, each once, for ``grace`` seconds from now or from
        the end of an answer that did not say it was the last: on some of them a request is on its way, and
        its client may not send it again."""
        if self.state is State.DRAINING:
            return
        self.state = State.DRAINING
        if delay:
            await self.clock.sleep(delay)
        self.handler.draining = True
        self.handler.lane = None
        self._listening.close()
        self.handler.websockets.drain(self.settings.drain_timeout)
        deadline = self.clock.monotonic() + self.settings.drain_timeout
        arrivals = getattr(self, "arrivals", None)
        arriving = () if arrivals is None else arrivals.under_way
        idle = Idle(self.clock, grace)
        # What was accepted last is a connection some turns of the loop later.
        await self.clock.sleep(LOOK)
        while (arriving or self.server.connections) and self.clock.monotonic() < deadline:
            silent = () if arrivals is None else arrivals.silent()
            idle.end((*self.server.idle(), *silent))
            await self.clock.sleep(LOOK)

    async def close(self) -> None:
        """End everything. Safe after a start that failed half-way."""
        self.state = State.DRAINING
        endings: tuple[tuple[str, Callable[[Any], Awaitable[None] | None]], ...] = (
            ("_listening", lambda x: x.close()),
            # Who was to have time to end has had it (drain); aiohttp waits this long twice.
            ("alerts", lambda x: x.close()),
            ("certificates", lambda x: x.close()),
            ("arrivals", lambda x: x.close()),
            ("server", lambda x: x.shutdown(0.1)),
            ("warming", lambda x: x.close()),
            ("admin", lambda x: x.close()),
            ("origin", lambda x: x.aclose()),
            ("compressor", lambda x: x.close()),
            ("store", lambda x: x.close()),
            ("background", lambda x: x.close()),
            ("_board", lambda x: x.close()),
            ("_buckets", lambda x: x.close()),
            ("telemetry", lambda x: x.close()),
        )
        for name, ending in endings:
            part = getattr(self, name, None)
            if part is not None:
                try:
                    result = ending(part)
                    if result is not None:
                        await result
                except Exception:
                    log.exception("%s did not end cleanly", name)


def request_ids() -> Callable[[], str]:
    """Ids that are unique across processes and cheap: 64 random bits of the process and a count."""
    prefix = secrets.token_hex(8)
    numbers = count(secrets.randbits(24))
    return lambda: f"{prefix}{next(numbers):012x}"
