"""Every metric that a part tells of itself: the store, the origins, the connections and the rest. One table.

Rules of this file:

- As catalogue.py: conventional names, base units, ``_total`` for what only grows. The name is
  ``edgeproxy_<part>_<key>`` unless that would not be.
- A key that does not stand here is told all the same, under a name that metrics.py derives; a test with real
  workers holds that there is none.
- EVERY is all that a scrape can name, these and those of catalogue.py, the process and the node included.
"""

from __future__ import annotations

from edgeproxy.observe.catalogue import CATALOGUE, Described, Join, Kind

_COUNTER, _GAUGE = Kind.COUNTER, Kind.GAUGE

# key, kind, help, how several workers' are joined, and the name where it is not the derived one
_Row = tuple[str, Kind, str] | tuple[str, Kind, str, Join] | tuple[str, Kind, str, Join, str]

_TOLD: dict[str, tuple[_Row, ...]] = {
    "store": (
        ("epoch", _GAUGE, "Number of the last purge.", Join.MAX),
        ("purges", _COUNTER, "Purges that this node has made."),
        ("l1_entries", _GAUGE, "Entries in memory."),
        ("l1_bytes", _GAUGE, "Octets that entries in memory take, overhead counted."),
        ("l1_max_bytes", _GAUGE, "Octets that entries in memory may take (--memory)."),
        ("l1_evictions", _COUNTER, "Entries let go to make room in memory."),
        ("uncacheable", _GAUGE, "Keys remembered as not storable (hit-for-miss)."),
        ("l2_hits", _COUNTER, "Lookups in the shared store that found something usable."),
        ("l2_misses", _COUNTER, "Lookups in the shared store that found nothing usable."),
        ("l2_corrupt_total", _COUNTER, "Records of the shared store that could not be decoded."),
        ("l2_foreign_total", _COUNTER, "Records of the shared store that were another key's."),
        (
            "l2_breaker_opened", _COUNTER, "Times that the shared store was left alone.", Join.SUM,
            "edgeproxy_store_l2_breaker_opens_total",
        ),
        ("l2_queued", _GAUGE, "Writes that wait for the shared store."),
        ("l2_reads", _COUNTER, "Reads of the shared store."),
        ("l2_timeouts", _COUNTER, "Reads of the shared store beyond --store-budget."),
        ("l2_errors", _COUNTER, "Reads of the shared store that failed."),
        ("l2_busy", _COUNTER, "Reads left out since too many were under way."),
        ("l2_skipped", _COUNTER, "Reads left out while the shared store is left alone."),
        ("l2_writes", _COUNTER, "Records that the shared store took."),
        ("l2_write_errors", _COUNTER, "Records that it did not take."),
        ("l2_write_drops", _COUNTER, "Records dropped since too many were waiting, or it is left alone."),
        ("l2_full", _COUNTER, "Records that it had no room for."),
        ("l2_overtaken", _COUNTER, "Records not written since a later fetch's was there."),
        ("l2_store_evictions", _COUNTER, "Records that the LMDB file let go to make room."),
        ("l2_store_expired", _COUNTER, "Records whose time was over."),
        ("l2_store_map_full", _COUNTER, "Writes that found the LMDB file full."),
        ("l2_store_quarantined", _COUNTER, "Damaged LMDB files put aside."),
        ("l2_store_entries", _GAUGE, "Records in the LMDB file.", Join.MAX),
        ("l2_store_bytes", _GAUGE, "Octets in use in the LMDB file.", Join.MAX),
        ("l2_store_max_bytes", _GAUGE, "Octets that the LMDB file may have (--store-size).", Join.MAX),
        ("bus_gaps", _COUNTER, "Times that purges of other nodes may have been missed, and L1 was dropped.",
         Join.SUM, "edgeproxy_store_bus_gaps_total"),
    ),
    "origin": (
        ("connections_open", _GAUGE, "Connections to origins."),
        ("connections_idle", _GAUGE, "Of these, kept for the next request."),
        ("connects_total", _COUNTER, "Connections made."),
        ("in_flight", _GAUGE, "Requests that origins are asked now."),
        ("queued", _GAUGE, "Requests that wait for a place at an origin."),
        ("resent_total", _COUNTER, "Requests sent again, since a kept connection had been closed."),
        ("surplus_total", _COUNTER, "Answers with octets after their end."),
    ),
    "request_bodies": (("held_bytes", _GAUGE, "Octets of request bodies held for rules with key.body."),),
    "connections": (
        ("open", _GAUGE, "Connections of clients."),
        ("limit", _GAUGE, "Connections that clients may have."),
        ("full_refused", _COUNTER, "Connections refused since there were as many as may be."),
        ("client_limit_refused", _COUNTER, "Connections refused since their client had as many as it may."),
        ("denied_refused", _COUNTER, "Connections refused by --allow or --deny."),
        ("head_timeouts", _COUNTER, "Connections ended since the head of a request did not come in time."),
        ("heads_too_large", _COUNTER, "Connections ended over a head of a request that was too large."),
    ),
    "overload": (
        ("requests", _GAUGE, "Requests under way.", Join.SUM, "edgeproxy_requests_in_flight"),
        (
            "admitted_share", _GAUGE, "Of the requests that need the origin, the share that is let through.",
            Join.MIN, "edgeproxy_overload_admitted_ratio",
        ),
        ("shed_total", _COUNTER, "Requests answered with 503 since there was too much to do."),
        ("refreshes_dropped", _COUNTER, "Refreshes left out since there was too much to do."),
    ),
    "alerts": (
        ("firing", _GAUGE, "Alerts that fire now (--alerts)."),
        ("notices", _COUNTER, "Notices of alerts that a receiver took."),
        ("notices_failed", _COUNTER, "Times that a receiver did not take them, or did not answer in time."),
        ("readings_failed", _COUNTER, "Times that the figures could not be had, so nothing was watched."),
    ),
    "loop": (("tasks", _GAUGE, "Tasks of the event loop, whoever began them."),),
    "access_log": (
        ("lines_total", _COUNTER, "Lines written."),
        ("lines_lost_total", _COUNTER, "Lines dropped, or refused by the disk."),
        ("pending_bytes", _GAUGE, "Octets that wait to be written."),
    ),
}  # fmt: skip


def _described(part: str, row: _Row) -> Described:
    key, kind, told, *more = row
    join = more[0] if more else Join.SUM
    name = f"edgeproxy_{part}_{key}" if len(more) < 2 else str(more[1])
    if kind is Kind.COUNTER and not name.endswith("_total"):
        name += "_total"
    return Described(name, kind, told, join=Join(join))


PARTS: dict[tuple[str, str], Described] = {
    (part, row[0]): _described(part, row) for part, rows in _TOLD.items() for row in rows
}
"""By the part and its key."""

NODE: dict[str, Described] = {
    key: Described(f"edgeproxy_node_{key}", kind, told)
    for key, kind, told in (
        ("workers", _GAUGE, "Workers that there should be (--workers)."),
        ("workers_ready", _GAUGE, "Workers that serve."),
        ("crashes_total", _COUNTER, "Workers that ended without being told to."),
        ("replacements_total", _COUNTER, "Workers that took the place of another one."),
    )
}
"""What the parent of several workers tells beside the sum of theirs, by its key."""

PROCESS: dict[str, Described] = {
    d.name: d
    for d in (
        Described("edgeproxy_process_virtual_memory_bytes", _GAUGE, "Virtual memory size in bytes."),
        Described("edgeproxy_process_resident_memory_bytes", _GAUGE, "Resident memory size in bytes."),
        Described(
            "edgeproxy_process_start_time_seconds", _GAUGE,
            "Start time of the process since unix epoch in seconds.", join=Join.MIN,
        ),
        Described(
            "edgeproxy_process_cpu_seconds_total", _COUNTER,
            "Total user and system CPU time spent in seconds.",
        ),
        Described("edgeproxy_process_open_fds", _GAUGE, "Number of open file descriptors."),
        Described("edgeproxy_process_max_fds", _GAUGE, "Maximum number of open file descriptors."),
    )
}  # fmt: skip
"""Told by prometheus-client, in its words."""

EVERY: dict[str, Described] = {
    **CATALOGUE, **{d.name: d for d in (*PARTS.values(), *NODE.values())}, **PROCESS,
}  # fmt: skip
"""Every name that a scrape may have, for whatever writes dashboards and alerts."""
