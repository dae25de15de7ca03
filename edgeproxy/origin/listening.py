"""Between a prompted request and who asked for it: what came of it is settled, as pools.py settles others.

Rules of this file:

- The listener is told what happened, once, unless it may go once more; then it is told so, and the origin's
  budget has been charged for it. What is sent again goes the ordinary way (pools.py).
- Only closed breakers are prompted: there is no trial here, and nothing extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from edgeproxy.origin.base import OriginError
from edgeproxy.origin.member import ERRORS
from edgeproxy.origin.retry import elsewhere_only, kind
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from edgeproxy.origin.base import OriginReply, PromptListener
    from edgeproxy.origin.member import Member
    from edgeproxy.origin.pools import OriginPool


@final
class Listening:
    """``PromptListener`` of origin/base.py. ``retry``: the rule's, as in ``Forward``."""

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
            member.erred(reply.response_time, status, trial=False)
            if self._may_repeat("5xx"):
                reply.body.close()
                error = OriginError(OriginFailure.SERVER_ERROR, status=status)
                self._listener.failed(error, again=True)
                return
        else:
            member.answered(reply)
            if self._pool.solo is None:
                self._pool.group_of(member).look_for_slow(member, reply.response_time)
        self._listener.answered(reply)

    def interim(self, under_way: object, request_time: float) -> None:
        self._listener.interim((self._pool, self._member, under_way), request_time)

    def failed(self, error: OriginError, *, again: bool) -> None:
        member = self._member
        if again:
            # A connection that had died: no fault of the origin's, but not for ever to be repeated.
            again = member.may_resend()
            if not again:
                member.client.count(error)
                member.failed(member.now(), error, trial=False)
        else:
            member.failed(member.now(), error, trial=False)
            what = kind(error.failure)
            alone = self._pool.solo is not None or len(self._pool.stable.members) == 1
            again = what is not None and not (alone and elsewhere_only(error)) and self._may_repeat(what)
        self._listener.failed(error, again=again)

    def _may_repeat(self, what: str) -> bool:
        policy = self._pool.spec.retries
        if what not in policy.on or not policy.attempts or self._retry == "none":
            return False
        if not self._member.may_resend():
            return False
        self._member.retries += 1
        return True
