"""From the settings to a watch that has begun."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from edgeproxy.alerting.plan import PlanError, wanted
from edgeproxy.alerting.watch import Watch
from edgeproxy.settings import SettingsError, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from edgeproxy.alerting.watch import Source
    from edgeproxy.clock import Clock
    from edgeproxy.settings import Settings


def begin(
    settings: Settings,
    source: Source,
    clock: Clock,
    spawn: Callable[[Coroutine[Any, Any, None], str], object],
) -> Watch | None:
    """None where nothing is to be watched. Raises SettingsError."""
    try:
        plan = wanted(settings, environment())
        if plan is None:
            return None
        instance = settings.node or f"{socket.gethostname()}:{settings.listen.port}"
        watch = Watch(plan, source, clock, spawn, instance)
    except PlanError as error:
        raise SettingsError(f"--alerts: {error}") from None
    watch.start()
    return watch
