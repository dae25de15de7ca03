"""Between a prompted request and who asked for it: what is the last word is settled here, as in pools.py.

Rules of this file:

- The listener is told what happened, once. Where the pool's policy may have it sent again, nothing is
  settled: the listener is told that it goes on, in a task, and pools.py decides as it does of every outcome.
- A kept connection that was dead is no outcome: it goes once more, if the origin's budget has room.
- Only closed breakers are prompted: there is no trial here, and nothing extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from edgeproxy.origin.member import ERRORS
from edgeproxy.origin.retry import kind

if TYPE_CHECKING:
    from edgeproxy.origin.base import OriginError, OriginReply, PromptListener
    from edgeproxy.origin.member import Member
    from edgeproxy.origin.pools import OriginPool
    from edgeproxy.origin.prompted import Interim


@final
class Unsettled:
    """A prompted request that goes on: what has come of it at ``member``."""

    __slots__ = ("member", "outcome", "pool")

    def __init__(
        self, pool: OriginPool, member: Member, outcome: OriginReply | OriginError | Interim
    ) -> None:
        self.pool = pool
        self.member = member
        self.outcome = outcome


@final
class Listening:
    """``Listener`` of origin/prompted.py. ``retry``: the rule's, as in ``Forward``."""

    __slots__ = ("_listener", "_member", "_pool", "_retry")

    def __init__(self, pool: OriginPool, member: Member, listener: PromptListener, retry: str) -> None:
        self._pool = pool
        self._member = member
        self._listener = listener
        self._retry = retry

    def answered(self, reply: OriginReply) -> None:
        member = self._member
        status = reply.status
        if status >= 500 and status in ERRORS:
            if self._may_repeat("5xx"):
                self._goes_on(reply)
                return
            member.erred(reply.response_time, status, trial=False)
        else:
            member.answered(reply)
            if self._pool.solo is None:
                self._pool.group_of(member).look_for_slow(member, reply.response_time)
        self._listener.answered(reply)

    def interim(self, interim: Interim) -> None:
        self._goes_on(interim)

    def failed(self, error: OriginError, *, again: bool) -> None:
        member = self._member
        if again:
            # A connection that had died: no fault of the origin's, but not for ever to be repeated.
            again = member.may_resend()
            if not again:
                member.client.count(error)
                member.failed(member.now(), error, trial=False)
        elif self._may_repeat(kind(error.failure)):
            self._goes_on(error)
            return
        else:
            member.failed(member.now(), error, trial=False)
        self._listener.failed(error, again=again)

    def _may_repeat(self, what: str | None) -> bool:
        policy = self._pool.spec.retries
        return what in policy.on and policy.attempts > 0 and self._retry != "none"

    def _goes_on(self, outcome: OriginReply | OriginError | Interim) -> None:
        self._listener.goes_on(Unsettled(self._pool, self._member, outcome))
