"""Entries and selecting functions for the store's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.policy.head import Headers
from edgeproxy.policy.stored import Freshness, LifetimeSource, Stored
from edgeproxy.policy.vary import variant_id
from edgeproxy.store.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOW = 1_700_000_000.0


def make_entry(
    target: str = "/a",
    body: bytes = b"body",
    *,
    host: str = "api.example",
    epoch: int = 0,
    started: int = 1,
    tags: tuple[str, ...] = (),
    vary: tuple[tuple[str, str | None], ...] = (),
    lifetime: float = 60.0,
    stale: float = 0.0,
    received: float = NOW,
    initial_age: float = 0.0,
    fields: tuple[tuple[str, str], ...] = (("Content-Type", "text/plain"), ("ETag", '"1"')),
) -> Entry:
    names, values = tuple(n for n, _ in vary), tuple(v for _, v in vary)
    freshness = Freshness(
        received, initial_age, lifetime, stale_while_revalidate=stale, source=LifetimeSource.MAX_AGE
    )
    stored = Stored(200, "OK", Headers.of(fields), freshness, len(body), names, values)
    return Entry(
        primary=f"http://{host}{target}",
        host=host,
        target=target,
        variant=variant_id(names, values),
        stored=stored,
        body=body,
        epoch=epoch,
        started=started,
        tags=tags,
        rule="pitches",
        fetch_seconds=0.25,
    )


def asking(**fields: str) -> Callable[[Sequence[str]], tuple[str | None, ...]]:
    """What a request selects: ``asking(accept_language="de")``."""
    values = {name.replace("_", "-"): value for name, value in fields.items()}
    return lambda names: tuple(values.get(name) for name in names)


def same(one: Entry | None, other: Entry) -> bool:
    """Is it the same answer, slot by slot of what is stored?"""
    return one is not None and all(
        getattr(one, name) == getattr(other, name)
        for name in ("primary", "host", "target", "variant", "stored", "body", "order", "tags", "rule",
                     "codings", "fetch_seconds", "fresh_until")
    )  # fmt: skip
