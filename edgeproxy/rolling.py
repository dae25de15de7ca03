"""All workers replaced, one at a time: new code, the settings read again (SIGUSR2, ``reload --workers``).

Rules of this file:

- Settings and rules are read and checked before the first worker is touched; what is wrong, or needs a
  restart, ends it there and everything goes on as it was.
- A new worker serves before the one that it replaces is told to end. One that does not start ends the whole
  thing: the old ones go on. Were none replaced yet, the old settings are in force again, so that a worker
  that crashes starts with them; else the new ones are, since they have proved themselves.
- When there are to be more workers, the others are replaced first; when fewer, what is over retires last.
- It is over when the old ones are gone: there are never more than two generations.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from edgeproxy.admin.control import Replaced
from edgeproxy.settings import SettingsError

if TYPE_CHECKING:
    from edgeproxy.child import Child
    from edgeproxy.settings import Settings

log = logging.getLogger("edgeproxy")


class Crew(Protocol):
    """The workers, and what can be done with them (supervisor.py)."""

    @property
    def ending(self) -> bool: ...

    def ready(self) -> list[Child]: ...

    def read_settings(self) -> Settings:
        """Again; those in force stay. Raises SettingsError."""

    def apply(self, settings: Settings) -> None:
        """What starts from now on starts with these."""

    def give_back(self) -> None:
        """The settings before are in force again."""

    async def reload_rules(self) -> tuple[str, ...]:
        """What is wrong with them, if anything."""

    async def start(self, slot: int) -> Child:
        """A worker that is ready, or gone again. Raises OSError."""

    async def take_over(self, new: Child, old: Child | None) -> None:
        """The new one is the slot's; the old one ends."""

    async def retire(self, old: Child) -> None:
        """Nobody takes its place."""

    async def all_gone(self, generation: int) -> None:
        """Until nobody older is left."""


class Rolling:
    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.generation = 1
        self.under_way = False
        self.last: Replaced | None = None

    def told(self) -> dict[str, object]:
        """For people."""
        last = self.last
        return {
            "generation": self.generation,
            "under_way": self.under_way,
            "last": None if last is None else {"replaced": last.count, "why_not": last.why_not},
        }

    async def run(self) -> Replaced:
        """Do it. One at a time: the caller sees to that."""
        self.under_way = True
        try:
            self.last = await self._run()
        finally:
            self.under_way = False
        if self.last.why_not:
            log.error("the replacement is given up, the old workers go on: %s", self.last.why_not)
        else:
            log.info("all workers are replaced")
        return self.last

    async def _run(self) -> Replaced:
        crew = self._crew
        log.info("replacing all workers, one at a time")
        try:
            settings = crew.read_settings()
        except SettingsError as error:
            return Replaced(0, str(error))
        wrong = await crew.reload_rules()
        if wrong:
            crew.give_back()
            return Replaced(0, f"the rules are refused: {wrong[0]}")
        self.generation += 1
        crew.apply(settings)
        count = 0
        why = ""
        while not why and (old := self._next(settings.workers)) is not None:
            why = await self._fill(old.slot, old)
            count += not why
        filled = {child.slot for child in crew.ready()}
        for slot in range(settings.workers):
            if not why and not crew.ending and slot not in filled:
                why = await self._fill(slot, None)
                count += not why
        if why:
            if not count:
                crew.give_back()
                for child in crew.ready():
                    child.generation = self.generation  # what is in force is what they have
            return Replaced(count, why)
        for old in crew.ready():
            if old.slot >= settings.workers:
                await crew.retire(old)
        await crew.all_gone(self.generation)
        return Replaced(count)

    def _next(self, workers: int) -> Child | None:
        """Who is to be replaced next. One that has crashed meanwhile is new already."""
        if self._crew.ending:
            return None
        old = [c for c in self._crew.ready() if c.generation < self.generation and c.slot < workers]
        return old[0] if old else None

    async def _fill(self, slot: int, old: Child | None) -> str:
        """A new worker in this slot; why not, if it does not start."""
        try:
            new = await self._crew.start(slot)
        except OSError as error:
            return str(error)
        if not new.ready:
            return new.failed or f"{new.name} {new.how}"
        await self._crew.take_over(new, old)
        return ""
