"""Builds one worker: every part made once, handed what it needs, started in order, ended in reverse.

Rules of this file: wiring only. No part is imported by another to find it; nothing here decides anything
about HTTP. Tests build a worker with a driven clock and run it in their own loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import resource
import secrets
import socket
from functools import partial
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.admin.api import make_admin
from edgeproxy.admin.auth import Auth, check_admin_address, is_loopback
from edgeproxy.admin.control import State
from edgeproxy.admin.listener import AdminListener
from edgeproxy.admin.private import make_private
from edgeproxy.admin.token_file import TOKEN_FILE, make_token
from edgeproxy.clock import Clock
from edgeproxy.cluster.shared_buckets import SharedBuckets
from edgeproxy.descriptors import shared_out
from edgeproxy.earned.ledger import Ledger
from edgeproxy.engine.aside import considerate
from edgeproxy.engine.background import Background
from edgeproxy.engine.forward import ForwardBuilder
from edgeproxy.engine.handle import Engine
from edgeproxy.engine.overload import Overload
from edgeproxy.front.arrival import Arrivals
from edgeproxy.front.compress import Compressor
from edgeproxy.front.doors import Doors, Terms
from edgeproxy.front.followed import Followed
from edgeproxy.front.handler import Handler
from edgeproxy.front.heads import Heads
from edgeproxy.front.lane import Lane
from edgeproxy.front.respond import EdgeFields, Responder
from edgeproxy.front.sampled import SampledLane
from edgeproxy.front.server import EdgeServer, verify
from edgeproxy.front.short import ShortWay
from edgeproxy.front.tls import Certificates
from edgeproxy.front.traced import Sampling, TracedLane, TracedShortWay
from edgeproxy.front.trust import Trust
from edgeproxy.front.websockets import WebSockets
from edgeproxy.networks import Networks
from edgeproxy.observe.access_log import AccessLog, mask
from edgeproxy.observe.metrics import Metrics
from edgeproxy.observe.percentiles import Percentiles
from edgeproxy.observe.troubles import Troubles
from edgeproxy.operate import Operator
from edgeproxy.origin.board import Board
from edgeproxy.origin.descriptors import Descriptors
from edgeproxy.origin.pools import Pools
from edgeproxy.origin.turns import Turns
from edgeproxy.rules.history import InForce, Order, RuleHistory
from edgeproxy.rules.model import RateLimit
from edgeproxy.rules.pools import Given, Timeouts
from edgeproxy.rules.taken import NOTHING, take
from edgeproxy.settings import SettingsError
from edgeproxy.store.open import check_store_url, open_store, parse_store_url
from edgeproxy.warm.service import Warming
from edgeproxy.warm.wanted_file import WantedFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.descriptors import Shares
    from edgeproxy.observe.spans import Spans
    from edgeproxy.observe.trace import Trace
    from edgeproxy.origin.base import Purpose
    from edgeproxy.rules.taken import Taken
    from edgeproxy.settings import HandedDown, Settings

log = logging.getLogger("edgeproxy")

BACKLOG = 4096


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
        self.idle: asyncio.Event = asyncio.Event()

    async def start(self) -> None:
        """Serve. Raises SettingsError for what is wrong with the settings, RuleError with the rules,
        OSError where an address cannot be had."""
        verify()
        settings, clock = self.settings, self.clock
        check_store(settings)
        auth = admin_auth(settings) if self._handed is None else None
        in_force = None
        if settings.rules is not None and self._handed is None:
            in_force = InForce(settings.rules, rule_history(settings))
        self.certificates = tls_of(settings)
        admin_certificates = admin_tls(settings) if self._handed is None else None
        with considerate():
            taken = self._first_rules(in_force)
        listen = self._listen or bind(settings.listen.host, settings.listen.port, "--listen")
        admin = None
        if self._handed is None:
            admin = self._admin or bind(settings.admin.host, settings.admin.port, "--admin")
        self.store = await open_store(
            settings.store,
            clock=clock,
            spawn=self.background.spawn,
            state_dir=self._state_dir(),
            l1_bytes=settings.memory,
            l2_bytes=settings.store_size,
            budget=settings.store_budget,
            node=settings.node or f"{socket.gethostname()}:{listen.getsockname()[1]}",
            l1_lease=settings.l1_lease,
            purge_wait=settings.purge_wait,
            together=None if self._handed is None else Path(self._handed.directory),
        )
        if self._handed is not None and not self.store.table.is_shared:
            raise SettingsError(f"--workers: the purge table cannot be shared: {self.store.degraded}")
        self.shares = self._shared_out()
        self.given = given(settings, self.shares.concurrent)
        self._board = self._open_board()
        self.origin = Pools(
            self.given.completed(taken.pools),
            clock=clock,
            spawn=self.background.spawn,
            turns=Turns(None if self._handed is None else self._handed.directory),
            chance=self._chance,
            board=self._board,
            descriptors=Descriptors(self.shares.origins),
        )
        forward = ForwardBuilder(
            settings.name, settings.origin_host, node_id(settings), settings.forwarded_fields
        )
        trust = Trust(settings.trusted_proxies) if settings.trusted_proxies else None
        self.followed = Followed(settings.trace_from, settings.trusted_proxies)
        overload = Overload(clock, most=settings.max_requests, lag=settings.max_lag)
        self.engine = Engine(
            clock=clock,
            store=self.store,
            origin=self.origin,
            background=self.background,
            forward=forward,
            matcher=taken.matcher,
            leases=self.store.leases,
            least=settings.min_rate,
            overload=overload,
            buckets=self._open_buckets(),
        )
        self.metrics = Metrics(clock)
        self.percentiles = Percentiles(clock.now, self.metrics.tally.counted)
        self.troubles = Troubles(clock.now)
        self.ledger = Ledger(clock, self.store.memory.holds)
        self.engine.observed_by(self.ledger)
        self.access_log = self._open_log()
        self.spans, self.sampling = self._tracing()
        self.compressor = Compressor(self.background, self.store.update)
        self.handler = Handler(
            engine=self.engine,
            responder=Responder(edge_fields(settings), clock),
            compressor=self.compressor,
            clock=clock,
            next_id=request_ids(),
            observers=self._observers(),
            max_body=settings.max_body,
            trust=trust,
            followed=self.followed,
            terms=self._terms(),
            websockets=WebSockets(clock, self.metrics.sockets, settings.websockets),
        )
        self.handler.sampling = self.sampling
        overload.in_flight = self._requests_under_way
        self.warming = self._warming()
        self.handler.asked = self.warming.asked
        self._whole_lane = self._lane()
        self.under(taken)
        if settings.lane:
            short: Callable[..., ShortWay] = ShortWay
            if self.sampling is not None:
                short = partial(TracedShortWay, self.sampling)
            self.handler.short = short(
                handler=self.handler,
                engine=self.engine,
                forward=forward,
                authority=self.origin.authority,
                background=self.background,
                compressor=self.compressor,
                next_id=request_ids(),
                trust=trust,
            )
        self.doors = Doors(self.handler.terms)
        self.heads = Heads(clock, settings.head_timeout)
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
        self.operator = Operator(self, in_force, taken)
        self.metrics.add_source("store", self.operator.store_numbers)
        self.metrics.add_source("origin", self.operator.origin_numbers)
        self.metrics.add_source("request_bodies", lambda: {"held_bytes": self.engine.contents.held})
        self.metrics.add_source("connections", self._connection_numbers)
        self.metrics.add_source("overload", overload.numbers)
        self.metrics.origins = self.operator.origin_rows
        if self.access_log is not None:
            self.metrics.add_source("access_log", self.access_log.stats)
        loop = asyncio.get_running_loop()
        factory: Callable[[], asyncio.BaseProtocol] = self.server
        if settings.proxy_protocol or self.certificates is not None:
            factory = self.arrivals = Arrivals(
                self.server,
                spawn=self.background.spawn,
                certificates=self.certificates,
                proxies=Networks(settings.proxy_protocol),
                seconds=settings.head_timeout,
            )
            self.metrics.add_source("arrivals", self.arrivals.numbers)
        if self.certificates is not None:
            self.certificates.watch(clock)
            self.metrics.add_source("tls", self.certificates.numbers)
        if self._handed is not None:
            self.admin = AdminListener(make_private(self.operator, clock))
            await self.admin.serve_path(Path(self._handed.control))
        else:
            self.admin = AdminListener(
                make_admin(
                    self.operator, auth, clock, background=self.background, purges=purge_limit(settings)
                )
            )
        if admin is not None:
            await self.admin.serve(admin, admin_certificates, clock)
            self.admin_port = self.admin.port
        self._socket = listen
        self._listening = await loop.create_server(factory, sock=listen, backlog=BACKLOG)
        self.port = int(listen.getsockname()[1])
        self.state = State.READY
        self.background.spawn(self.warming.start(), "warm start")

    def _terms(self) -> Terms:
        settings = self.settings
        proxies = (*settings.trusted_proxies, *settings.proxy_protocol)
        return Terms(
            most=self.shares.clients,
            each=settings.client_connections,
            exempt=Networks((*settings.unlimited_clients, *proxies)),
            allow=Networks((*settings.allow, *(proxies if settings.allow else ()))),
            deny=Networks(settings.deny),
        )

    def _shared_out(self) -> Shares:
        settings = self.settings
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        shares = shared_out(
            settings.max_connections,
            settings.origin_connections,
            None if descriptors == resource.RLIM_INFINITY else descriptors,
        )
        if (shares.clients, shares.concurrent) != (settings.max_connections, settings.origin_connections):
            log.warning(
                "--max-connections: %d, --origin-connections: %d, since this process may open %d files "
                "(ulimit -n)",
                shares.clients,
                shares.concurrent,
                descriptors,
            )
        return shares

    def _connection_numbers(self) -> dict[str, int]:
        return {**self.doors.numbers(), "head_timeouts": self.heads.timeouts}

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
        self.metrics.set_rules(r.name for r in taken.rules)
        self.percentiles.set_rules(r.name for r in taken.rules)

    def _warming(self) -> Warming:
        settings, origin = self.settings, self.origin
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
            log_trace=None if self.access_log is None else self.access_log.write,
            tally=self.metrics.warm,
            files=files,
            first=slot == 0,
        )

    def _lane(self) -> Lane | None:
        if not self.settings.lane or "x-response-time" in self.settings.show_fields:
            return None
        make: Callable[..., Lane] = Lane if self.sampling is None else partial(TracedLane, self.sampling)
        return make(
            clock=self.clock,
            memory=self.store.memory,
            words=self.store.table.words,
            responder=self.handler.responder,
            metrics=self.metrics,
            percentiles=self.percentiles,
            next_id=request_ids(),
            log=self.access_log,
            hot=self.compressor.hot,
            asked=self.warming.asked,
            unsure=self.followed.unsure,
        )

    def _state_dir(self) -> Path | None:
        """Where the purge table goes. One worker with memory alone needs none: both end together."""
        if self._handed is not None:
            return Path(self._handed.state)
        if parse_store_url(self.settings.store).kind in ("memory", "lmdb"):
            return None
        try:
            self.settings.cache_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log.warning("purges are forgotten at the end: %s: %s", self.settings.cache_dir, error.strerror)
            return None
        return self.settings.cache_dir

    def _open_board(self) -> Board | None:
        """What the workers of a node tell one another of origins; none where there is one worker."""
        if self._handed is None:
            return None
        try:
            return Board.open(self._handed.directory, self._handed.slot)
        except OSError as error:
            log.warning("each worker finds out for itself which origins fail: %s", error.strerror)
            return None

    def _open_buckets(self) -> SharedBuckets | None:
        """Of rate limits; each worker's own where there is one."""
        self._buckets = None
        if self._handed is not None:
            try:
                self._buckets = SharedBuckets.open(self._handed.directory)
            except OSError as error:
                log.warning("each worker counts rate limits for itself: %s", error.strerror)
        return self._buckets

    def _open_log(self) -> AccessLog | None:
        where = self.settings.access_log
        if where == "off" or self.settings.access_log_sample == 0:
            return None
        try:
            path = None if where == "-" else Path(where)
            turns = None if self._handed is None else Path(self._handed.directory) / "access-log-turns"
            return AccessLog(self.clock, path, sample=self.settings.access_log_sample, turns=turns)
        except OSError as error:
            raise SettingsError(f"--access-log: {where}: {error.strerror}") from None

    def _observers(self) -> list[Callable[[Trace], None]]:
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

    def _tracing(self) -> tuple[Spans | None, Sampling | None]:
        """Raises SettingsError where spans are wanted and cannot be made."""
        settings = self.settings
        if not settings.otlp:
            return None, None
        try:
            from edgeproxy.observe.spans import Spans  # noqa: PLC0415 - an extra, and dear to import
        except ImportError:
            raise SettingsError(
                "--otlp: OpenTelemetry is not installed here: pip install 'edgeproxy[otel]'"
            ) from None
        sampling = Sampling(settings.trace_sample, random.random, self.followed)
        return Spans(self.clock, settings.otlp, settings.name), sampling

    @property
    def memory_alone(self) -> bool:
        """A shared store was wanted and could not be opened."""
        return self.store.shared is None and bool(self.store.degraded)

    # -- the end ----------------------------------------------------------------------------------------

    async def drain(self, grace: float = 0.0) -> None:
        """Not ready at once; accept no more; let what is under way end, up to the drain timeout. Idle
        connections are still answered for ``grace`` seconds, each once: on some of them a request is on
        its way, and its client may not send it again."""
        if self.state is State.DRAINING:
            return
        self.state = State.DRAINING
        self.handler.draining = True
        self.handler.lane = None
        self._listening.close()
        self.handler.websockets.drain(self.settings.drain_timeout)
        begun = self.clock.monotonic()
        grace = min(grace, self.settings.drain_timeout)
        while self.server.connections and self.clock.monotonic() < begun + grace:
            await self.clock.sleep(0.05)
        self.server.close_idle()
        deadline = begun + self.settings.drain_timeout
        # A connection ends when the last octet of its answer is out.
        while self.server.connections and self.clock.monotonic() < deadline:
            await self.clock.sleep(0.05)

    async def close(self) -> None:
        """End everything. Safe after a start that failed half-way."""
        self.state = State.DRAINING
        for name, ending in (
            ("_listening", lambda x: x.close()),
            # Who was to have time to end has had it (drain); aiohttp waits this long twice.
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
            ("access_log", lambda x: x.close()),
            ("spans", lambda x: asyncio.to_thread(x.close)),
        ):
            part = getattr(self, name, None)
            if part is not None:
                try:
                    result = ending(part)
                    if asyncio.iscoroutine(result):
                        await result
                except Exception:
                    log.exception("%s did not end cleanly", name)


def site(settings: Settings) -> str:
    """Names the origin in the cache directory: what is known of one is nothing to another."""
    return blake2b(f"{settings.origin}\n{settings.origin_host}".encode(), digest_size=6).hexdigest()


def rule_history(settings: Settings) -> RuleHistory | None:
    """None where none is to be kept, or there is no place for it."""
    if not settings.rule_history or settings.rules is None:
        return None
    named = f"{site(settings)}\n{settings.rules.resolve()}"
    try:
        place = settings.cache_dir / f"rules-{blake2b(named.encode(), digest_size=6).hexdigest()}"
        return RuleHistory(place, settings.rule_history)
    except OSError as error:
        log.warning("no versions of the rules are kept: %s: %s", settings.cache_dir, error.strerror)
        return None


def given(settings: Settings, concurrent: int) -> Given:
    """What the command line says of origins, and how many requests each may have at once."""
    return Given(
        settings.origins,
        Timeouts(
            connect=settings.connect_timeout,
            first_byte=settings.first_byte_timeout,
            between_bytes=settings.read_timeout,
        ),
        concurrent,
    )


def check_store(settings: Settings) -> None:
    """Raise SettingsError for a --store that means nothing, or whose files cannot be read."""
    try:
        check_store_url(settings.store)
    except ValueError as error:
        raise SettingsError(f"--store: {error}") from None


def purge_limit(settings: Settings) -> RateLimit | None:
    """Of the admin port."""
    return RateLimit(settings.purge_rate, settings.purge_rate * 10) if settings.purge_rate else None


def tls_of(settings: Settings) -> Certificates | None:
    """Of the listener; None: HTTP. Raises SettingsError."""
    return _certificates("--tls", settings.tls_certificate, settings.tls_client_ca)


def admin_tls(settings: Settings) -> Certificates | None:
    """Of the admin port. Raises SettingsError."""
    return _certificates("--admin-tls", settings.admin_tls_certificate, settings.admin_tls_client_ca)


def _certificates(flag: str, files: tuple[tuple[Path, Path], ...], client_ca: str) -> Certificates | None:
    if not files:
        if client_ca:
            raise SettingsError(f"{flag}-client-ca: means nothing without {flag}-certificate")
        return None
    try:
        return Certificates(files, Path(client_ca) if client_ca else None)
    except ValueError as error:
        raise SettingsError(f"{flag}-certificate: {error}") from None


def admin_auth(settings: Settings) -> Auth:
    """Who may do what on the admin port. Raises SettingsError."""
    try:
        check_admin_address(settings.admin.host, settings.admin_token)
        return Auth(admin_token(settings), settings.read_token, loopback=is_loopback(settings.admin.host))
    except ValueError as error:
        raise SettingsError(f"--admin: {error}") from None


def admin_token(settings: Settings) -> str | None:
    """The admin token; on one's own machine, where none is set, one in a file that only we can read."""
    if settings.admin_token:
        return settings.admin_token
    try:
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        return make_token(settings.cache_dir / TOKEN_FILE)
    except (OSError, ValueError) as error:
        log.warning("no admin token, so nothing can be changed: %s", error)
        return None


def edge_fields(settings: Settings) -> EdgeFields:
    hidden = settings.hide_fields
    return EdgeFields(
        name=settings.name,
        location=settings.location,
        x_cache_status="x-cache-status" not in hidden,
        cache_status="cache-status" not in hidden,
        proxy_status="proxy-status" not in hidden,
        server_timing="server-timing" not in hidden,
        x_request_id="x-request-id" not in hidden,
        x_edge_location="x-edge-location" not in hidden,
        x_response_time="x-response-time" in settings.show_fields - hidden,
        age="age" not in hidden,
        via="via" not in hidden,
    )


def node_id(settings: Settings) -> str:
    """What tells this node from others in a row (CDN-Loop): the same in all its workers."""
    named = f"{socket.gethostname()}\n{settings.listen}\n{settings.origin}"
    return blake2b(named.encode(), digest_size=6).hexdigest()


def request_ids() -> Callable[[], str]:
    """Ids that are unique across processes and cheap: 64 random bits of the process and a count."""
    prefix = secrets.token_hex(8)
    numbers = count(secrets.randbits(24))
    return lambda: f"{prefix}{next(numbers):012x}"


def bind(host: str, port: int, flag: str) -> socket.socket:
    """A listening-to-be TCP socket. Raises SettingsError with one clear line."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise SettingsError(f"{flag}: {host}:{port}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.setblocking(False)  # noqa: FBT003
    except OSError as error:
        sock.close()
        raise SettingsError(f"{flag}: {host}:{port}: {error.strerror}") from None
    return sock
