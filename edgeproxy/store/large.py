"""Large entries of L2: each is read once and held once, however many clients are sent it.

Rules of this file:

- Without it each request for what L1 does not hold (it is larger than L1, or was evicted) would bring in a
  copy of its own: two hundred slow readers of 50 MiB would be 10 GiB.
- Nothing is kept alive here: an entry is known as long as somebody uses it, a reading as long as it lasts.
- It is no tier. What is found is judged by the caller like anything read from L2, and only while fresh: of
  what is stale another worker may have stored a newer one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import ref

from edgeproxy.store.codec import decode
from edgeproxy.store.entry import Entry

if TYPE_CHECKING:
    from edgeproxy.policy.vocabulary import LookupMiss
    from edgeproxy.store.codec import Marker

    Reading = asyncio.Future[Entry | Marker | LookupMiss]
    Place = tuple[bytes, str, str]

LARGE = 128 * 1024
"""Octets from which on coding and checking happens in a thread."""


class LargeEntries:
    """Per worker. By namespace, primary key and variant."""

    def __init__(self) -> None:
        self._held: dict[Place, ref[Entry]] = {}
        self._readings: dict[Place, Reading] = {}

    def __bool__(self) -> bool:
        return bool(self._held or self._readings)

    def known(self, place: Place, now: float) -> Entry | Reading | None:
        """The entry, if it is in use and fresh; or the reading of its record that is under way."""
        reading = self._readings.get(place)
        if reading is not None:
            return reading
        held = self._held.get(place)
        entry = held() if held is not None else None
        return entry if entry is not None and entry.fresh_until > now else None

    def note(self, place: Place, entry: Entry) -> None:
        """It is the newest in its place."""
        if len(entry.body) < LARGE:
            self._held.pop(place, None)
            return

        def gone(it: ref[Entry]) -> None:
            if self._held.get(place) is it:
                del self._held[place]

        self._held[place] = ref(entry, gone)

    def forget(self, place: Place) -> None:
        self._held.pop(place, None)

    def read(self, data: bytes, place: Place, now: float) -> Reading:
        """Decode a record in a thread. It goes on whoever stops waiting: await it shielded."""
        namespace, primary, variant = place
        loop = asyncio.get_running_loop()
        reading: Reading = loop.run_in_executor(None, decode, data, (primary, variant), namespace, now)
        self._readings[place] = reading

        def ended(_: object) -> None:
            del self._readings[place]
            if not reading.cancelled() and reading.exception() is None:
                record = reading.result()
                if isinstance(record, Entry):
                    self.note(place, record)

        reading.add_done_callback(ended)
        return reading
