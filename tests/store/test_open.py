from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeproxy.store.open import open_store, parse_store_url
from edgeproxy.store.purge import PurgeKind, PurgeOrder

if TYPE_CHECKING:
    from edgeproxy.engine.background import Background
    from tests.support.driven import DrivenClock


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory:", "memory"), ("lmdb:/var/cache/edge", "lmdb"), ("lmdb:relative", "lmdb"),
        ("redis://localhost", "redis"), ("rediss://user:word@r.example:6380/2", "redis"),
        ("memcached://m.example:11211", "memcached"), ("redis://[::1]:6379/0", "redis"),
    ],
)  # fmt: skip
def test_what_a_url_means(url: str, kind: str) -> None:
    place = parse_store_url(url)
    assert place.kind == kind
    assert "word" not in place.shown


@pytest.mark.parametrize(
    "url",
    ["", "memory", "lmdb:", "redis:", "redis://", "redis://h:port", "redis://h:99999", "redis://h/zero",
     "memcached://u:secret@h", "memcached://h/x", "http://h", "redis://u:secret@", "ftp://u:secret@h/x"],
)  # fmt: skip
def test_a_bad_url_is_refused_with_one_line(url: str) -> None:
    with pytest.raises(ValueError, match=r"^store [^\n]+$") as refused:
        parse_store_url(url)
    assert "secret" not in str(refused.value)


def test_a_path_may_begin_with_the_home_directory() -> None:
    assert parse_store_url("lmdb:~/x").path == Path.home() / "x"


async def test_workers_share_the_purge_table(
    tmp_path: Path, clock: DrivenClock, background: Background
) -> None:
    one, other = [
        await open_store("memory:", clock=clock, spawn=background.spawn, state_dir=tmp_path) for _ in range(2)
    ]
    receipt = await one.purge(PurgeOrder(PurgeKind.ALL))
    assert other.epoch == receipt.number
    await one.close()
    await other.close()
