"""What a Redis URL means, and that no message ever repeats a password."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cluster.redis_url import SCHEMES, Kind, parse_redis_url, secret_of, tls_context, with_password
from edgeproxy.store.open import check_store_url, parse_store_url

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "database"),
    [
        ("redis://cache", Kind.ONE, (("cache", 6379),), 0),
        ("REDIS://cache:1/2", Kind.ONE, (("cache", 1),), 2),
        ("rediss://[::1]:7/3", Kind.ONE, (("::1", 7),), 3),
        ("redis+unix:/run/redis.sock?db=4", Kind.UNIX, (), 4),
        ("redis+unix:///run/redis.sock", Kind.UNIX, (), 0),
        ("redis+sentinel://a,b:1/edge/5", Kind.SENTINEL, (("a", 26379), ("b", 1)), 5),
        ("rediss+sentinel://a/edge", Kind.SENTINEL, (("a", 26379),), 0),
        ("redis+cluster://a:1,[::1]:2,c", Kind.CLUSTER, (("a", 1), ("::1", 2), ("c", 6379)), 0),
        ("rediss+cluster://a/", Kind.CLUSTER, (("a", 6379),), 0),
    ],
)
def test_what_a_url_means(url: str, kind: Kind, hosts: tuple[object, ...], database: int) -> None:
    place = parse_redis_url(url)
    assert (place.kind, place.hosts, place.database) == (kind, hosts, database)
    assert place.tls is url.lower().startswith("rediss")
    assert place.path == ("/run/redis.sock" if kind is Kind.UNIX else "")
    assert place.service == ("edge" if kind is Kind.SENTINEL else "")
    assert (place.username, place.password) == (None, None)


@pytest.mark.parametrize(
    ("credentials", "user", "password"),
    [
        ("u:p@", "u", "p"), (":p@", None, "p"), ("u@", "u", None), ("u%3A:p%40%2F@", "u:", "p@/"),
        (":a/b#c?d@e@", None, "a/b#c?d@e"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["redis://{}h:1/2", "redis+cluster://{}h,i", "redis+unix:{}/a/b"])
def test_user_and_password(place: str, credentials: str, user: str | None, password: str | None) -> None:
    found = parse_redis_url(place.format(credentials))
    assert (found.username, found.password) == (user, password)
    for told in (found.shown, found.identity, repr(found), repr(parse_store_url(place.format(credentials)))):
        assert "p" not in told.replace("path", "").replace("ports", "").split("password")[0].partition("h")[0]
    assert found.shown == parse_redis_url(place.format("")).shown
    assert found.identity == parse_redis_url(place.format("")).identity


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis:cache", "expected redis://"), ("redis://", "no host"), ("redis://a,b", "redis+cluster://"),
        ("redis://a:0", "no host"), ("redis://a:x", "no host"), ("redis://a/x", "the database is a number"),
        ("redis://:secret@a/x", "the database is a number"), ("redis://:sec#ret@a:b", "no host"),
        ("redis://a?ca=/x", "rediss"), ("rediss://a?cert=/x", "cert and key"), ("rediss://a?sni=x", "'sni'"),
        ("redis+sentinel://a", "service"), ("redis+sentinel:///edge", "no host"),
        ("redis+cluster://a/1", "databases"), ("redis+unix:run/x", "begins with /"),
        ("redis+unix:/x?db=y", "the database is a number"), ("redis+cluster://a,,b", "no host"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_without_the_password(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^store [^\n]+$") as refused:
        parse_redis_url(url)
    assert said in str(refused.value)
    assert "sec" not in str(refused.value)


@given(st.sampled_from(sorted(SCHEMES)), st.text("a0:/@?#,[]%=&.é \n", max_size=40))
def test_whatever_is_given_there_is_a_meaning_or_one_line(scheme: str, rest: str) -> None:
    try:
        place = parse_redis_url(f"{scheme}://{rest}")
    except ValueError as error:
        assert str(error).startswith("store ")  # noqa: PT017
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert place.hosts or place.path


@given(
    st.text("ab:/@?#,[]%é\n", min_size=1, max_size=30),
    st.sampled_from(["redis://h/1", "redis://u@h", "redis+unix:/s?db=1"]),
)
def test_a_password_put_in_is_the_one_that_comes_out(password: str, url: str) -> None:
    before, after = parse_redis_url(url), parse_redis_url(with_password(url, password))
    assert after.password == password
    assert (after.username, after.identity) == (before.username, before.identity)


def test_files_that_cannot_be_used_are_told_before_anything_is_opened(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    (tmp_path / "empty").write_text(" \n")
    for url, said in (
        (f"rediss://:secret@h?ca={tmp_path}/none.pem", "none.pem: No such file"),
        (f"rediss://:secret@h?ca={tmp_path}/bad.pem", "bad.pem: not usable"),
        (f"rediss://:secret@h?cert={tmp_path}/bad.pem&key={tmp_path}/bad.pem", "bad.pem: not usable"),
        (f"redis+sentinel://:secret@h/edge?sentinel_password_file={tmp_path}/empty", "expected a password"),
    ):
        with pytest.raises(ValueError, match=f"^store[^\n]*{said}[^\n]*$") as refused:
            check_store_url(url)
        assert "secret" not in str(refused.value)
    (tmp_path / "word").write_text("word\n")
    assert secret_of(str(tmp_path / "word")) == "word"
    assert tls_context(parse_redis_url("redis://h")) is None
