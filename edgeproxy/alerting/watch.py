"""Looks at the figures every few seconds, and has the receivers told: one for each node.

Rules of this file:

- It reads what ``/metrics`` tells (of all workers), works it out aside, and sends what is due. A request
  never waits for any of it, and what goes wrong here is a line in the log and a number.
- A look that is still under way when the next one is due is not joined by it.
- A receiver is told one thing at a time. One that does not answer within PATIENCE has failed for the log and
  the count, and is tried again when it has let go.
- Times are Clock.now(): ages, and what notices say.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from edgeproxy.alerting import message
from edgeproxy.alerting.escalation import Escalation
from edgeproxy.alerting.post import Said
from edgeproxy.alerting.state import State
from edgeproxy.engine.aside import aside
from edgeproxy.observe import merge
from edgeproxy.observe.alert_rules import alerts
from edgeproxy.observe.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from edgeproxy.alerting.escalation import Notice
    from edgeproxy.alerting.message import Message
    from edgeproxy.alerting.plan import Plan
    from edgeproxy.alerting.post import Post
    from edgeproxy.alerting.state import Episode, Key
    from edgeproxy.clock import Clock, Timer

PATIENCE = 30.0
"""Seconds."""
KEPT = 50
"""Alerts that are over and still shown."""

log = logging.getLogger("edgeproxy.alerts")


class Source(Protocol):
    async def metrics(self) -> bytes:
        """What a scrape gets."""


@dataclass(slots=True)
class _Receiver:
    """How it has gone."""

    post: Post
    sent: float | None = None
    failed: float | None = None
    why: str = ""
    hangs: bool = False
    telling: bool = False
    """What it was last told is not settled yet."""


class Watch:
    """``spawn`` runs work in the background; ``instance`` names the node in what is sent."""

    def __init__(
        self,
        plan: Plan,
        posts: Mapping[str, Post],
        source: Source,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        instance: str,
    ) -> None:
        self._receivers = {name: _Receiver(post) for name, post in posts.items()}
        self._plan = plan
        self._source = source
        self._clock = clock
        self._spawn = spawn
        self.instance = instance
        self.state = State(alerts(plan.usual))
        self._seen = Timeline(self.state.windows, plan.interval)
        self._escalation = Escalation(plan)
        self._firing: list[Episode] = []
        self._pending: list[Episode] = []
        self._over: deque[Episode] = deque(maxlen=KEPT)
        self._looked: float | None = None
        self._timer: Timer | None = None
        self._looking = self._closed = False
        self._notices = self._failed = self._unread = 0

    def start(self) -> None:
        self._timer = self._clock.call_later(self._plan.interval, self._begin)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    # -- looking ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.start()
        if not self._looking and not self._closed:
            self._looking = True
            self._spawn(self._look(), "look for alerts")

    async def _look(self) -> None:
        try:
            exposition = await self._source.metrics()
            over = await aside(partial(self._work_out, exposition, self._clock.now()))
        except Exception:
            self._unread += 1
            log.exception("the figures could not be had, so no alert is watched now")
            return
        finally:
            self._looking = False
        before = {episode.key for episode in self._firing}
        self._firing, self._pending = self.state.firing, self.state.pending
        self._over.extend(over)
        self._told_to_the_log(before, over)
        self._send_what_is_due()

    def _work_out(self, exposition: bytes, now: float) -> list[Episode]:
        self._seen.take(merge.read(exposition.decode()), now)
        over = self.state.step(self._seen, now)
        self._looked = now
        return over

    def _told_to_the_log(self, before: set[Key], over: list[Episode]) -> None:
        for episode in self._firing:
            if episode.key not in before:
                level = logging.ERROR if episode.alert.severity == "critical" else logging.WARNING
                log.log(level, "%s: %s", episode.alert.name, episode.summary(self.instance))
        for episode in over:
            log.info("%s is over: %s", episode.alert.name, episode.summary(self.instance))

    # -- telling ----------------------------------------------------------------------------------------

    def _send_what_is_due(self) -> None:
        now = self._clock.now()
        for name, receiver in self._receivers.items():
            if receiver.telling or receiver.post.busy:
                continue
            notices = self._escalation.due(name, self._firing, now)
            if notices:
                receiver.telling = True
                told = message.composed(notices, self.instance, now)
                self._spawn(self._tell(receiver, told, notices), f"notice to {name}")

    async def _tell(self, receiver: _Receiver, told: Message, notices: list[Notice]) -> None:
        try:
            said = await self._sent(receiver, told)
        finally:
            receiver.telling = False
        name = receiver.post.name
        if said.ok:
            self._notices += len(notices)
            self._escalation.taken(name, notices, self._clock.now())
        else:
            pause = self._escalation.failed(name, self._clock.now())
            log.warning("receiver %s was not told of alerts: %s; again in %g s", name, said.why, pause)

    async def _sent(self, receiver: _Receiver, told: Message) -> Said:
        """What it said, at last: a receiver that hangs is waited for, and counted when it is too late."""
        future = receiver.post.send(told)
        # The clock's waiter takes futures of anything.
        if not await self._clock.wait_for(future, PATIENCE):  # type: ignore[arg-type]
            receiver.hangs = True
            self._note(receiver, Said(ok=False, why=f"no answer within {PATIENCE:g} s"))
            log.warning("receiver %s has not answered for %g s", receiver.post.name, PATIENCE)
        said = await future
        receiver.hangs = False
        self._note(receiver, said)
        return said

    def _note(self, receiver: _Receiver, said: Said) -> None:
        if said.ok:
            receiver.sent = self._clock.now()
        else:
            self._failed += 1
            receiver.failed = self._clock.now()
        receiver.why = said.why

    async def trial(self) -> list[dict[str, Any]]:
        """Tell every receiver that this is a test: what each said, within PATIENCE."""
        told = message.trial(self.instance, self._clock.now())
        futures = {
            name: None if receiver.telling or receiver.post.busy else receiver.post.send(told)
            for name, receiver in self._receivers.items()
        }
        answers: list[dict[str, Any]] = []
        for name, future in futures.items():
            post = self._receivers[name].post
            if future is None:
                said = Said(ok=False, why="it has not answered to what it was told before")
            elif await self._clock.wait_for(future, PATIENCE):  # type: ignore[arg-type]
                said = future.result()
            else:
                said = Said(ok=False, why=f"no answer within {PATIENCE:g} s")
            answers.append({"receiver": name, "kinds": list(post.kinds), "ok": said.ok, "said": said.why})
        return answers

    # -- being asked ------------------------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        """For people, JSON-ready; times in seconds since the epoch."""
        now = self._clock.now()
        return {
            "watching": True,
            "now": now,
            "looked": self._looked,
            "interval": self._plan.interval,
            "firing": [message.told(each, self.instance, now) for each in self._firing],
            "pending": [message.told(each, self.instance, now) for each in self._pending],
            "over": [message.told(each, self.instance, now) for each in reversed(self._over)],
            "receivers": [
                {
                    "receiver": name,
                    "kinds": list(each.post.kinds),
                    "sent": each.sent,
                    "failed": each.failed,
                    "hangs": each.hangs,
                    "said": each.why,
                }
                for name, each in self._receivers.items()
            ],
        }

    def numbers(self) -> Mapping[str, int]:
        return {
            "firing": len(self._firing),
            "notices": self._notices,
            "notices_failed": self._failed,
            "readings_failed": self._unread,
        }
