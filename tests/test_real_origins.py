"""edgeproxy, as an operator starts it, in front of origins that we did not write: datasette and httpbin.

Rules of this file: plain HTTP caching (``--rules none``); every answer is compared with what the origin
says when it is asked directly.
"""

from __future__ import annotations

import gzip
import json
import random
from typing import TYPE_CHECKING

import brotli
import pytest

from tests.support.origins import Answer, EdgeProcess, Running, datasette, edgeproxy_process, httpbin

if TYPE_CHECKING:
    from collections.abc import Iterator

# One worker of the test run starts these processes, once.
pytestmark = pytest.mark.xdist_group("real-origins")


@pytest.fixture(scope="module")
def cities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with datasette(tmp_path_factory.mktemp("datasette")) as running:
        yield running


@pytest.fixture(scope="module")
def bin_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with httpbin(tmp_path_factory.mktemp("httpbin")) as running:
        yield running


@pytest.fixture(scope="module")
def cities_edge(cities: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeProcess]:
    with edgeproxy_process(cities.url, tmp_path_factory.mktemp("edge-datasette")) as edge:
        yield edge


FOLLOWED = ("--trace-from", "all")


@pytest.fixture(scope="module")
def bin_edge(bin_: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeProcess]:
    with edgeproxy_process(bin_.url, tmp_path_factory.mktemp("edge-httpbin"), arguments=FOLLOWED) as edge:
        yield edge


def word(answer: Answer) -> str | None:
    return answer.get("X-Cache-Status")


def requests_seen(origin: Running, target: str) -> int:
    """How many requests for the target httpbin has logged."""
    return origin.log().count(f"{target} HTTP/1.1")


@pytest.mark.parametrize(
    "target",
    [
        "/geo/cities.json?_shape=array&_size=50",
        "/geo.json?sql=select+sum(people)+from+cities&_shape=array",
        "/geo/cities/7.json?_shape=array",
    ],
)
def test_datasette_from_the_cache_is_what_datasette_says(
    cities: Running, cities_edge: EdgeProcess, target: str
) -> None:
    host = {"Host": "geo.example"}
    direct = cities.request("GET", target, host)
    miss = cities_edge.request("GET", target, host)
    hit = cities_edge.request("GET", target, host)
    assert (direct.status, word(miss), word(hit)) == (200, "MISS", "HIT")
    for answer in (miss, hit):
        assert answer.status == 200
        assert answer.body == direct.body
        for name in ("Content-Type", "Cache-Control", "Referrer-Policy", "Link"):
            assert answer.get(name) == direct.get(name), name
    assert hit.get("Age") is not None
    assert "edgeproxy; hit; ttl=" in (hit.get("Cache-Status") or "")
    assert hit.get("Content-Length") == str(len(direct.body))


def test_two_hosts_do_not_share_an_answer(cities_edge: EdgeProcess) -> None:
    target = "/geo/cities.json?_shape=array&_size=3"
    first = cities_edge.request("GET", target, {"Host": "one.example"})
    other = cities_edge.request("GET", target, {"Host": "two.example"})
    assert (word(first), word(other)) == ("MISS", "MISS")
    # datasette writes the host it was asked for into its links: the reason why.
    assert "one.example" in (first.get("Link") or "")
    assert "two.example" in (other.get("Link") or "")


def test_a_page_from_the_cache_is_the_page_that_was_stored(cities_edge: EdgeProcess) -> None:
    # The page says how long its queries took, so no two that datasette makes are the same.
    miss, hit = (cities_edge.get("/geo/cities?_size=5") for _ in range(2))
    assert (word(miss), word(hit)) == ("MISS", "HIT")
    assert b"Queries took" in miss.body
    assert hit.body == miss.body


def test_what_datasette_says_to_one_person_is_not_shared(cities_edge: EdgeProcess) -> None:
    target = "/geo/cities.json?_shape=array&_size=4"
    assert word(cities_edge.get(target)) == "MISS"
    # It answers with "private, no-store" and Vary: Cookie, Authorization.
    personal = [cities_edge.get(target, cookie="a=1") for _ in range(2)]
    personal += [cities_edge.get(target, authorization="Bearer x") for _ in range(2)]
    assert "HIT" not in [word(answer) for answer in personal]
    assert word(cities_edge.get(target)) == "HIT"


def test_datasette_streamed_csv(cities: Running, cities_edge: EdgeProcess) -> None:
    target = "/geo/cities.csv?_stream=on&_size=max"
    direct = cities.get(target)
    assert direct.get("Transfer-Encoding") == "chunked"
    assert cities_edge.get(target).body == direct.body


def test_head_of_what_get_has_stored(cities_edge: EdgeProcess) -> None:
    target = "/geo/cities.json?_shape=array&_size=6"
    stored = cities_edge.get(target)
    head = cities_edge.request("HEAD", target)
    assert (head.status, word(head), head.body) == (200, "HIT", b"")
    assert head.get("Content-Length") == str(len(stored.body))


def test_datasette_errors_are_passed_on(cities: Running, cities_edge: EdgeProcess) -> None:
    direct = cities.get("/geo/nowhere.json")
    answer = cities_edge.get("/geo/nowhere.json")
    assert (answer.status, answer.body) == (direct.status, direct.body) == (404, direct.body)


def test_httpbin_max_age(bin_: Running, bin_edge: EdgeProcess) -> None:
    miss, hit = bin_edge.get("/cache/60"), bin_edge.get("/cache/60")
    assert (word(miss), word(hit)) == ("MISS", "HIT")
    assert hit.body == miss.body
    assert hit.get("Cache-Control") == "public, max-age=60"
    assert requests_seen(bin_, "/cache/60") == 1


def test_httpbin_without_lifetime_is_validated_each_time(bin_: Running, bin_edge: EdgeProcess) -> None:
    first, second = bin_edge.get("/cache"), bin_edge.get("/cache")
    assert (word(first), word(second)) == ("MISS", "REVALIDATED")
    assert (second.status, second.body) == (200, first.body)
    assert '"GET /cache HTTP/1.1" 304' in bin_.log()


def test_httpbin_etag_and_the_clients_condition(bin_: Running, bin_edge: EdgeProcess) -> None:
    target = "/response-headers?ETag=%22v1%22&Cache-Control=max-age%3D60&marked=1"
    assert bin_edge.get(target).get("ETag") == '"v1"'
    same = bin_edge.get(target, if_none_match='W/"v0", "v1"')
    assert (same.status, same.body, word(same)) == (304, b"", "HIT")
    assert bin_edge.get(target, if_none_match='"v0"').status == 200
    assert requests_seen(bin_, "&marked=1") == 1


def test_an_etag_without_quotes_goes_through_as_it_is(bin_edge: EdgeProcess) -> None:
    # httpbin's ETag is not one by RFC 9110 §8.8.3.
    assert bin_edge.get("/etag/kept").get("ETag") == "kept"


def test_httpbin_gzip_is_passed_through_coded(bin_edge: EdgeProcess) -> None:
    answer = bin_edge.get("/gzip", accept_encoding="gzip")
    assert answer.get("Content-Encoding") == "gzip"
    assert json.loads(gzip.decompress(answer.body))["gzipped"] is True


def test_httpbin_brotli_is_passed_through_coded(bin_edge: EdgeProcess) -> None:
    answer = bin_edge.get("/brotli", accept_encoding="br")
    assert answer.get("Content-Encoding") == "br"
    assert json.loads(brotli.decompress(answer.body))["brotli"] is True


def test_a_redirect_is_the_clients_to_follow(bin_: Running, bin_edge: EdgeProcess) -> None:
    target = "/redirect-to?url=/uuid&status_code=302"
    answer = bin_edge.get(target)
    assert (answer.status, answer.get("Location")) == (302, "/uuid")
    assert requests_seen(bin_, "GET /uuid") == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_unsafe_methods_reach_the_origin_with_their_body(bin_edge: EdgeProcess, method: str) -> None:
    body = random.Random(3).randbytes(300_000).hex().encode()
    fields = {"Content-Type": "text/plain", "X-Kept": "as sent"}
    answer = bin_edge.request(method, f"/{method.lower()}?a=%2Fb&a=1", fields, body)
    echo = json.loads(answer.body)
    assert (answer.status, word(answer)) == (200, "BYPASS")
    assert echo["data"] == body.decode()
    assert echo["args"] == {"a": ["/b", "1"]}
    assert echo["headers"]["X-Kept"] == "as sent"
    assert echo["headers"]["Content-Length"] == str(len(body))


def test_a_chunked_body_stays_chunked(bin_edge: EdgeProcess) -> None:
    # httpbin's development server takes none and says so: what it says shows how the body came.
    answer = bin_edge.request("POST", "/post", {"Content-Type": "text/plain"}, [b"abc", b"def"])
    assert answer.status == 501
    assert b"Chunked requests are not supported" in answer.body


def test_a_teapot_is_passed_on_and_not_stored(bin_: Running, bin_edge: EdgeProcess) -> None:
    direct = bin_.get("/status/418")
    seen = requests_seen(bin_, "/status/418")
    answers = [bin_edge.get("/status/418") for _ in range(2)]
    assert [answer.status for answer in answers] == [418, 418]
    assert [answer.body for answer in answers] == [direct.body] * 2
    assert requests_seen(bin_, "/status/418") == seen + 2


@pytest.mark.parametrize("status", [204, 301, 404, 410, 500, 503])
def test_every_status_arrives_as_it_was_sent(bin_: Running, bin_edge: EdgeProcess, status: int) -> None:
    direct, answer = bin_.get(f"/status/{status}"), bin_edge.get(f"/status/{status}")
    assert (answer.status, answer.body) == (direct.status, direct.body) == (status, direct.body)
    assert answer.get("Location") == direct.get("Location")


def test_streamed_bytes_are_the_same_bytes(bin_: Running, bin_edge: EdgeProcess) -> None:
    target = "/stream-bytes/102400?seed=5&chunk_size=999"
    assert bin_edge.get(target).body == bin_.get(target).body


def test_a_range_of_what_is_not_stored_comes_from_the_origin(bin_edge: EdgeProcess) -> None:
    answer = bin_edge.get("/range/2048", range="bytes=10-19")
    assert (answer.status, answer.body) == (206, b"klmnopqrst")
    # httpbin sends a Content-Range with its 200 too: only the one of this part may go out.
    assert answer.get("Content-Range") == "bytes 10-19/2048"


def test_a_range_of_what_is_stored_is_cut_here(bin_: Running, bin_edge: EdgeProcess) -> None:
    # A Content-Range in the stored 200 is the origin's slip; it must not stand beside ours.
    target = "/response-headers?Cache-Control=max-age%3D60&Content-Range=bytes%200-9/10&marked=2"
    whole = bin_edge.get(target)
    part = bin_edge.get(target, range="bytes=5-9")
    assert (part.status, part.body, word(part)) == (206, whole.body[5:10], "HIT")
    assert part.get("Content-Range") == f"bytes 5-9/{len(whole.body)}"
    assert requests_seen(bin_, "&marked=2") == 1


def test_an_answer_that_sets_a_cookie_is_not_shared(bin_: Running, bin_edge: EdgeProcess) -> None:
    target = "/response-headers?Cache-Control=max-age%3D60&Set-Cookie=session%3D1"
    answers = [bin_edge.get(target) for _ in range(2)]
    assert [answer.get("Set-Cookie") for answer in answers] == ["session=1"] * 2
    assert "HIT" not in [word(answer) for answer in answers]
    assert requests_seen(bin_, target) == 2


def test_the_origin_sees_the_host_and_the_request_id(bin_edge: EdgeProcess) -> None:
    answer = bin_edge.get("/headers?show_env=1", host="api.example", x_request_id="abc-123")
    seen = json.loads(answer.body)["headers"]
    assert seen["Host"] == "api.example"
    assert seen["X-Request-Id"] == answer.get("X-Request-ID") == "abc-123"


def test_credentials_are_challenged_and_accepted_by_the_origin(bin_edge: EdgeProcess) -> None:
    refused = bin_edge.get("/basic-auth/ada/secret")
    assert (refused.status, refused.get("WWW-Authenticate")) == (401, 'Basic realm="Fake Realm"')
    accepted = bin_edge.get("/basic-auth/ada/secret", authorization="Basic YWRhOnNlY3JldA==")
    assert accepted.status == 200
    assert bin_edge.get("/basic-auth/ada/secret").status == 401
