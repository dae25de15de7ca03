"""The workers of a node, as those see them who ask: all at once, or whichever answers first.

Rules of this file: a worker that does not answer in time is left out, with a line in the log; any other
failure is the asker's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgeproxy.admin.worker_link import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from edgeproxy.admin.control import Replaced, State
    from edgeproxy.admin.worker_link import WorkerLink

T = TypeVar("T")

_LOG = logging.getLogger("edgeproxy.admin")


class Member(Protocol):
    """One worker, as far as this file is concerned."""

    @property
    def name(self) -> str: ...
    @property
    def link(self) -> WorkerLink: ...


class Team(Protocol):
    """The workers, whoever keeps them running."""

    @property
    def state(self) -> State: ...

    def ready(self) -> Sequence[Member]:
        """Those that serve."""

    def describe(self) -> list[dict[str, object]]:
        """Each worker, for people."""

    def numbers(self) -> Mapping[str, int]:
        """``workers`` wanted, ``workers_ready``, ``crashes_total``, ``replacements_total``."""

    def replacement(self) -> Mapping[str, object]:
        """How the last replacement of all went, for people."""

    def replace(self, member: Member, why: str) -> None:
        """End this worker at once; another one takes its place."""

    async def replace_all(self) -> Replaced:
        """One at a time, with the settings read again. Raises Refused."""


async def each(team: Team, ask: Callable[[Member], Awaitable[T]]) -> list[tuple[Member, T]]:
    """Ask all at once; those that do not answer are left out."""
    members = team.ready()
    answers = await asyncio.gather(*(ask(member) for member in members), return_exceptions=True)
    told: list[tuple[Member, T]] = []
    for member, answer in zip(members, answers, strict=True):
        if isinstance(answer, NoAnswer):
            _LOG.warning("%s did not answer: %s", member.name, answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            told.append((member, answer))
    return told


async def first(team: Team, ask: Callable[[Member], Awaitable[T | None]]) -> T | None:
    """What the first worker says that answers with anything; None where none does."""
    for member in team.ready():
        try:
            told = await ask(member)
        except NoAnswer as error:
            _LOG.warning("%s did not answer: %s", member.name, error)
            continue
        if told is not None:
            return told
    return None
