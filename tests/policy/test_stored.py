from __future__ import annotations

from edgeproxy.policy.stored import Freshness, Overrides, Unsafe
from tests.policy.make import NOW, stored


def test_age_counts_from_receipt_and_is_never_negative() -> None:
    freshness = Freshness(received=NOW, initial_age=5, lifetime=60)
    assert freshness.age(NOW + 10) == 15
    assert freshness.age(NOW - 1000) == 5
    assert freshness.fresh_until == NOW + 55


def test_fresh_until_the_last_instant() -> None:
    freshness = Freshness(received=NOW, initial_age=0, lifetime=60)
    assert freshness.is_fresh(NOW + 59.9)
    assert not freshness.is_fresh(NOW + 60)
    assert not Freshness(received=NOW, initial_age=0, lifetime=60, must_validate=True).is_fresh(NOW)


def test_a_store_holds_it_as_long_as_it_can_be_of_use() -> None:
    windows = Freshness(
        received=NOW, initial_age=0, lifetime=60, stale_while_revalidate=10, stale_if_error=20, keep=5
    )
    assert windows.storage_ttl(NOW) == 85
    assert windows.storage_ttl(NOW + 90) == 25
    never = Freshness(received=NOW, initial_age=0, lifetime=60, stale_if_error=20, keep=5, never_stale=True)
    assert never.storage_ttl(NOW) == 65


def test_a_soft_purge_never_lengthens() -> None:
    freshness = Freshness(received=NOW, initial_age=5, lifetime=60)
    assert freshness.stale_from(NOW + 10).fresh_until == NOW + 10
    assert freshness.stale_from(NOW + 99) is freshness
    assert freshness.stale_from(NOW - 99).fresh_until == NOW - 5
    # Told to a cache below by Age: as old as it may become.
    assert freshness.stale_from(NOW + 10).age(NOW + 10) == 60


def test_validators_at_hand() -> None:
    entry = stored({"Cache-Control": "max-age=5", "ETag": '"a"', "Last-Modified": "x"})
    assert (entry.etag, entry.last_modified) == ('"a"', "x")


def test_sharing_what_was_authorized_needs_the_word() -> None:
    assert not Overrides(unsafe=frozenset({Unsafe.PRIVATE})).shares_authorized
    assert Overrides(unsafe=frozenset({Unsafe.AUTHORIZATION})).shares_authorized


def test_a_lifetime_is_shortened_by_a_share_of_what_was_left() -> None:
    freshness = Freshness(NOW, 20.0, 60.0)
    assert freshness.shortened(0.25).lifetime == 50.0
    assert freshness.shortened(0.25).fresh_until == NOW + 30
    assert Freshness(NOW, 90.0, 60.0).shortened(0.5).lifetime == 60.0
