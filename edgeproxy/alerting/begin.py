"""From the settings to a watch that has begun: what is wrong is said before anything is served."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeproxy.alerting.plan import PlanError, wanted
from edgeproxy.alerting.post import posts
from edgeproxy.alerting.watch import Watch
from edgeproxy.settings import SettingsError, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from edgeproxy.alerting.plan import Plan
    from edgeproxy.alerting.post import Post
    from edgeproxy.alerting.watch import Source
    from edgeproxy.clock import Clock
    from edgeproxy.settings import Settings


@dataclass(frozen=True, slots=True)
class Planned:
    """``plan`` None: nothing is watched."""

    plan: Plan | None
    posts: Mapping[str, Post]
    instance: str

    def begin(
        self, source: Source, clock: Clock, spawn: Callable[[Coroutine[Any, Any, None], str], object]
    ) -> Watch | None:
        """Look from now on, from time to time."""
        if self.plan is None:
            return None
        watch = Watch(self.plan, self.posts, source, clock, spawn, self.instance)
        watch.start()
        return watch


def planned(settings: Settings) -> Planned:
    """What the settings say. Raises SettingsError."""
    instance = settings.node or f"{socket.gethostname()}:{settings.listen.port}"
    try:
        plan = wanted(settings, environment())
        return Planned(plan, {} if plan is None else posts(plan), instance)
    except PlanError as error:
        raise SettingsError(f"--alerts: {error}") from None
