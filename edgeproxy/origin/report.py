"""What operators are told of the origins: sums, one row for each, and a word for /readyz.

Rules of this file: reading only; keys come from here, so their number is bounded by the rule files.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError
from edgeproxy.origin.breaker import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeproxy.origin.member import Member
    from edgeproxy.origin.pools import OriginPool, Pools

PROBED_FOR = 0.7
"""Seconds after which an origin that does not let us connect is said not to answer."""


def each(pools: Pools) -> Iterator[tuple[OriginPool, Member]]:
    for pool in pools.pools.values():
        for member in pool.members:
            yield pool, member


def sums(pools: Pools) -> dict[str, int | float | str]:
    """Of all origins together."""
    members = [member for _, member in each(pools)]
    clients = [member.client for member in members]
    return {
        "connections_open": sum(c.connections_open for c in clients),
        "connections_idle": sum(c.connections_idle for c in clients),
        "connects_total": sum(c.connects for c in clients),
        "in_flight": sum(c.in_flight for c in clients),
        "queued": sum(c.queued for c in clients),
        "resent_total": sum(c.resent for c in clients),
        "surplus_total": sum(c.surplus for c in clients),
    }


def rows(pools: Pools, now: float) -> dict[str, dict[str, dict[str, int | float | str]]]:
    """Pool -> origin -> what is known of it; ``latency_seconds`` is a moving average to the head."""
    told: dict[str, dict[str, dict[str, int | float | str]]] = {}
    for pool, member in each(pools):
        state, why = member.state(now)
        canary = pool.canary is not None and pool.trial is not None and member in pool.trial.members
        row: dict[str, int | float | str] = {
            "state": state,
            "reason": why,
            # One that may be tried again has not come back yet: between trials it would seem to, each time.
            "usable": int(state == "usable"),
            "requests": member.requests,
            "failures": member.failures,
            "errors": member.errors,
            "retries": member.retries,
            "refused_by_budget": member.budget.refused,
            "breaker_opens": member.breaker.opens,
            "ejections": member.ejector.ejections,
            "in_flight": member.client.in_flight,
            "queued": member.client.queued,
            "latency_seconds": round(member.latency, 6),
        }
        if canary and pool.canary is not None:
            row["canary"] = f"ended: {pool.canary.ended}" if pool.canary.ended else "on trial"
        told.setdefault(pool.name, {})[member.name] = row
    return told


async def health(pools: Pools, now: float) -> tuple[bool, str]:
    """Whether every origin is well, and what is wrong: those known to be out are named, the others are
    connected to."""
    members = list(each(pools))
    said = await asyncio.gather(*(_how(member, now) for _, member in members))
    several = len(members) > 1
    wrong = [
        f"{pool.name}: {member.name}: {why}" if several else why
        for (pool, member), why in zip(members, said, strict=True)
        if why
    ]
    return not wrong, "; ".join(wrong) or "ok"


async def _how(member: Member, now: float) -> str:
    state, why = member.state(now)
    if state != "usable" and member.breaker.state is not State.HALF_OPEN:
        return f"{state} ({why})"
    try:
        async with asyncio.timeout(PROBED_FOR):
            await member.client.probe()
    except TimeoutError:
        return f"no connection within {PROBED_FOR:g} s"
    except OriginError as error:
        return str(error)
    return ""
