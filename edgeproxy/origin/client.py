"""The client of one origin: a request goes out, one well-framed answer or one named failure comes back.

Rules of this file:

- A request is sent twice at most, and only when it is idempotent, has no body on its way, went out on a
  reused connection, and that connection ended before any octet of an answer (RFC 9110 §9.2.2, RFC 9112
  §9.3.1). The second time is on a fresh connection. It is counted.
- A fetch that ends in any way but an answer (failure, cancellation) has closed its connection and given its
  place back before the caller hears of it.
- Counters are plain ints, folded into metrics by whoever reads them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aiohttp.streams import EMPTY_PAYLOAD

from edgeproxy.origin.answer import Body, Reply
from edgeproxy.origin.base import OriginError
from edgeproxy.origin.connection import Limits, verify_aiohttp
from edgeproxy.origin.dial import Address, Dialer
from edgeproxy.origin.framing import request_head, response_head
from edgeproxy.origin.pool import Pool
from edgeproxy.origin.probes import keep_asking
from edgeproxy.origin.prompted import Prompted
from edgeproxy.origin.recognise import Heads
from edgeproxy.origin.tunnel import SwitchedConnection, check_accepted
from edgeproxy.origin.upload import Upload
from edgeproxy.policy.events import streams_events
from edgeproxy.policy.vocabulary import OriginFailure
from edgeproxy.rules.pools import AGE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader

    from edgeproxy.clock import Clock
    from edgeproxy.origin.base import Forward
    from edgeproxy.origin.connection import Connection
    from edgeproxy.origin.descriptors import Descriptors
    from edgeproxy.origin.prompted import Interim, Listener
    from edgeproxy.origin.upload import Spawn
    from edgeproxy.policy.head import Headers

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""RFC 9110 §9.2.2, RFC 10008 §2."""

MAX_INTERIM = 16
"""1xx answers before the final one."""


class OriginClient:
    """Implements ``Origin``. Seconds, counts and octets as in Limits; ``spawn`` starts uploads.

    ``url`` is ``http://host[:port]``, ``https://host[:port]`` or ``unix:/path`` (ValueError otherwise).
    ``max_age`` None: AGE for an origin given by name, which may move, else no limit.
    ``tls`` replaces the default context, ``server_name`` the URL's host in SNI and certificate.
    ``descriptors``: shared with other origins.
    Raises RuntimeError on an aiohttp it was not written for.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        spawn: Spawn,
        connect_timeout: float = 3.0,
        tls_timeout: float | None = None,
        first_byte_timeout: float = 10.0,
        read_timeout: float = 30.0,
        idle_timeout: float = 30.0,
        max_head: int = 65_536,
        max_connections: int = 256,
        max_queued: int = 1024,
        queue_timeout: float = 3.0,
        max_age: float | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        descriptors: Descriptors | None = None,
    ) -> None:
        verify_aiohttp()
        address = Address.parse(url)
        self.url = url
        self.authority = address.authority
        self.now = clock.now
        self.max_head = max_head
        self.heads = Heads(max_head)
        self._clock = clock
        self._spawn = spawn
        if max_age is None:
            max_age = AGE if address.is_name else math.inf
        self._pool = Pool(
            Dialer(address, clock, connect_timeout, tls_timeout, tls=tls, server_name=server_name),
            clock,
            Limits(first_byte_timeout, read_timeout, idle_timeout, max_head),
            max_connections=max_connections,
            max_queued=max_queued,
            queue_timeout=queue_timeout,
            max_age=max_age,
            descriptors=descriptors,
        )
        self.resent = 0
        """Requests sent a second time."""
        self.surplus = 0
        """Answers after whose announced end more octets came: dropped, with the connection."""
        self.failures: dict[OriginFailure, int] = dict.fromkeys(OriginFailure, 0)
        self.may_resend: Callable[[], bool] = _always
        """Asked before a request is sent a second time."""
        self.on_body_failure: Callable[[OriginError], object] | None = None
        """Told of an answer that broke off."""

    @property
    def connections_open(self) -> int:
        return self._pool.open

    @property
    def connections_idle(self) -> int:
        return self._pool.idle

    @property
    def connects(self) -> int:
        """Connections opened so far."""
        return self._pool.connects

    @property
    def in_flight(self) -> int:
        """Requests that hold a place at the origin."""
        return self._pool.in_flight

    @property
    def queued(self) -> int:
        """Requests that wait for a place."""
        return self._pool.queued

    async def probe(self) -> None:
        """Returns when the origin can be connected to. Raises OriginError."""
        connection = self._pool.take_idle()
        if connection is None:  # not "or": a connection without unread heads counts as empty, so as false
            connection = await self._pool.connect()
        self._pool.give_back(connection)

    def refuse_waiting(self, why: str) -> None:
        """Tell whoever waits for a place that there will be none: OriginError(BREAKER_OPEN)."""
        self._pool.refuse_waiting(OriginFailure.BREAKER_OPEN, why)

    def retire(self) -> None:
        """No longer wanted: what is under way goes on to its end, and no connection is kept."""
        self._pool.retire()

    async def aclose(self) -> None:
        """End every connection; a fetch under way fails. Returns when no descriptor is left."""
        await self._pool.aclose()

    def prompt(self, octets: bytes, listener: Listener, read_timeout: float | None = None) -> Prompted | None:
        """As ``Origin.prompt``, of this one origin. Raises nothing."""
        pool = self._pool
        if not pool.idle or not pool.try_enter():
            return None
        connection = pool.take_idle()
        if connection is None:
            pool.leave()
            return None
        try:
            connection.begin(octets, skip_body=False, deadline=True)
        except OriginError:
            connection.drop()
            pool.leave()
            return None
        return Prompted(self, connection, listener, read_timeout)

    async def after_interim(self, interim: Interim, forward: Forward) -> Reply:
        """The final answer to a prompted request, which ``forward`` is. Raises OriginError."""
        try:
            return await self._final(interim.connection, forward, interim.message, interim.request_time)
        except BaseException as error:
            if isinstance(error, OriginError):
                self.count(error)
            self._pool.leave()
            raise

    async def _final(
        self, connection: Connection, forward: Forward, message: RawResponseMessage, request_time: float
    ) -> Reply:
        try:
            message, payload = await self._after_interim(connection, forward, message)
            response_time = self.now()
            head, length = response_head(message, forward.method, self.max_head)
            self.wait_for_body(connection, head.headers, forward.read_timeout)
            connection.head_done(payload, length)
        except BaseException:
            connection.drop()
            raise
        body = Body(connection, payload, length, None, self.release, self.broke_off)
        return Reply(head, body, request_time, response_time)

    async def fetch(self, forward: Forward) -> Reply:
        """See ``Origin.fetch``. Raises OriginError; ValueError where the head could not be sent safely."""
        octets = request_head(forward, self.authority)
        if forward.content is not None:
            octets += forward.content
        pool = self._pool
        try:
            if not pool.try_enter():
                await pool.enter()
            try:
                return await self._send(forward, octets)
            except BaseException:
                pool.leave()
                raise
        except OriginError as error:
            self.failures[error.failure] += 1
            raise

    async def _send(self, forward: Forward, octets: bytes) -> Reply:
        """On an idle connection if there is one; once more on a fresh one where that is allowed."""
        may_resend = forward.body is None and forward.method in IDEMPOTENT
        connection = None
        if forward.resent:
            self.resent += 1
        else:
            connection = self._pool.take_idle()
        if connection is not None:
            try:
                return await self._exchange(connection, forward, octets)
            except OriginError as error:
                if not may_resend or connection.answered or error.failure is not OriginFailure.RESET:
                    raise
                if not self.may_resend():
                    raise
            self.resent += 1
        return await self._exchange(await self._pool.connect(), forward, octets)

    async def _exchange(self, connection: Connection, forward: Forward, octets: bytes) -> Reply:
        clock, method = self._clock, forward.method
        upload: Upload | None = None
        request_time = clock.now()
        try:
            connection.begin(octets, skip_body=method == "HEAD", deadline=forward.body is None)
            if forward.body is not None:
                upload = Upload(connection, forward.body, forward.length, self._spawn)
            message, payload = await connection.read_head()
            if message.code < 200:
                message, payload = await self._after_interim(connection, forward, message)
            response_time = clock.now()
            if message.code == 101:
                return self._switched(connection, forward, message, request_time)
            head, length = response_head(message, method, self.max_head)
            self.wait_for_body(connection, head.headers, forward.read_timeout)
            connection.head_done(payload, length)
        except BaseException:
            if upload is not None:
                upload.stop()
            connection.drop()
            raise
        body = Body(connection, payload, length, upload, self.release, self.broke_off)
        return Reply(head, body, request_time, response_time)

    async def _after_interim(
        self, connection: Connection, forward: Forward, message: RawResponseMessage
    ) -> tuple[RawResponseMessage, StreamReader]:
        """Hand on the 1xx answers, return the final one."""
        for _ in range(MAX_INTERIM):
            if message.code == 101:
                if not forward.upgrade:
                    raise OriginError(OriginFailure.BAD_RESPONSE, "101 without Upgrade")
                return message, EMPTY_PAYLOAD
            interim, _length = response_head(message, forward.method, self.max_head)
            if forward.on_interim is not None:
                forward.on_interim(interim)
            connection.expect_head()
            message, payload = await connection.read_head()
            if message.code >= 200:
                return message, payload
        raise OriginError(OriginFailure.BAD_RESPONSE, f"more than {MAX_INTERIM} interim answers")

    def _switched(
        self, connection: Connection, forward: Forward, message: RawResponseMessage, request_time: float
    ) -> Reply:
        """The origin goes on as asked: no request's place is held any more."""
        connection.switched()
        keep_asking(connection.transport)
        head, _length = response_head(message, forward.method, self.max_head)
        check_accepted(forward.headers, head.headers)
        self._pool.leave()
        return Reply(head, SwitchedConnection(connection), request_time, self._clock.now())

    @staticmethod
    def wait_for_body(connection: Connection, fields: Headers, read_timeout: float | None) -> None:
        """How long the origin may be silent within the body of an answer; ``read_timeout`` as in Forward."""
        if read_timeout is not None:
            connection.silence = read_timeout or math.inf
        elif streams_events(fields):
            connection.silence = math.inf  # nothing may happen for hours, and no event be amiss
        if connection.silence == math.inf:
            keep_asking(connection.transport)

    def release(self, connection: Connection, reuse: bool) -> None:  # noqa: FBT001
        if reuse:
            self.surplus += connection.has_extra()
            self._pool.give_back(connection)
        else:
            connection.drop()
        self._pool.leave()

    def count(self, error: OriginError) -> None:
        self.failures[error.failure] += 1

    def broke_off(self, error: OriginError) -> None:
        """An answer whose head was well did not come to its end."""
        self.count(error)
        if self.on_body_failure is not None:
            self.on_body_failure(error)


def _always() -> bool:
    return True
