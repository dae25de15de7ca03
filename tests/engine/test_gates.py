"""Token buckets and address lists of rules, beside a model of them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cluster.region import Region
from edgeproxy.cluster.shared_buckets import WAYS, SharedBuckets
from edgeproxy.engine.gates import Buckets, Gates
from edgeproxy.networks import Networks, networks_in
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.policy.vocabulary import Unsatisfied
from edgeproxy.rules.model import Clients, RateLimit, Rule
from tests.support.driven import DrivenClock

if TYPE_CHECKING:
    from pathlib import Path


@given(
    shared=st.booleans(),
    rate=st.sampled_from([0.5, 2.0, 10.0]),
    burst=st.integers(1, 5),
    pauses=st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 4.0]), max_size=40),
)
def test_a_bucket_lets_through_what_a_model_of_tokens_does(
    shared: bool, rate: float, burst: int, pauses: list[float]
) -> None:
    buckets = SharedBuckets(Region.anonymous(SharedBuckets.size(1)), 1) if shared else Buckets()
    limit = RateLimit(rate, burst)
    now, tokens = 100.0, float(burst)
    for pause in pauses:
        now += pause
        tokens = min(float(burst), tokens + pause * rate)
        asked = buckets.wait("r", "k", limit, now, take=False)
        assert (asked == 0.0) == (tokens >= 1 - 1e-6)
        if asked:
            assert abs(asked - (1 - tokens) / rate) < 1e-6
        assert buckets.wait("r", "k", limit, now, take=True) == asked
        tokens -= asked == 0.0


def test_buckets_are_bounded_and_what_is_used_stays() -> None:
    buckets, limit = Buckets(most=100), RateLimit(0.001, 1)
    assert buckets.wait("r", "busy", limit, 0.0, take=True) == 0.0
    for number in range(1000):
        buckets.wait("r", str(number), limit, 0.0, take=True)
        if number < 49:
            assert buckets.wait("r", "busy", limit, 0.0, take=True) > 0
    assert len(buckets) <= 100


# -- the node's -------------------------------------------------------------------------------------------


def of_node(file: Path, sets: int) -> SharedBuckets:
    return SharedBuckets(Region.file(file, SharedBuckets.size(sets)), sets)


def test_what_one_worker_gave_another_does_not_have(tmp_path: Path) -> None:
    """Two mappings of one file; the second after the first has ended, too."""
    limit = RateLimit(1.0, 3)
    one, two = of_node(tmp_path / "b", 16), of_node(tmp_path / "b", 16)
    took = [each.wait("r", "k", limit, 50.0, take=True) for each in (one, two, one)]
    assert took == [0.0] * 3
    one.close()
    for buckets in (two, of_node(tmp_path / "b", 16)):
        assert buckets.wait("r", "k", limit, 50.5, take=False) == 0.5
        assert buckets.wait("r", "k", limit, 50.5, take=True) == 0.5
        for name, key in (("r", "other"), ("other", "k"), ("rk", ""), ("", "rk")):
            assert buckets.wait(name, key, limit, 50.5, take=False) == 0.0
        buckets.close()


def test_whose_place_is_taken_begins_with_a_full_bucket(tmp_path: Path) -> None:
    """One set of places: whoever comes when all are taken gets that of the bucket that is full soonest."""
    buckets = of_node(tmp_path / "b", 1)
    limit = RateLimit(1.0, 1)
    for number in range(WAYS):
        assert buckets.wait("r", str(number), limit, float(number), take=True) == 0.0
        now = float(number)
    assert buckets.wait("r", str(WAYS - 1), limit, now, take=True) == 1.0
    for made_up in range(100):
        waits = [buckets.wait("r", str(number), limit, now, take=False) for number in range(WAYS)]
        assert all(0.0 <= wait <= 1.0 for wait in waits)
        buckets.wait("made up", str(made_up), limit, now, take=True)
    buckets.close()


def test_where_a_set_is_nobody_can_choose(tmp_path: Path) -> None:
    """The same keys fall together otherwise in another node's table."""
    found = []
    for name in "ab":
        buckets = of_node(tmp_path / name, 1024)
        for number in range(16):
            buckets.wait("r", str(number), RateLimit(1.0, 1), 1.0, take=True)
        words = buckets._words.tolist()[8::16]
        found.append([place for place, mark in enumerate(words) if mark])
        buckets.close()
    assert found[0] != found[1]


TAKER = """
import os, signal, sys
from pathlib import Path
from edgeproxy.cluster.region import Region
from edgeproxy.cluster.shared_buckets import SharedBuckets
from edgeproxy.rules.model import RateLimit
region = Region.file(Path(sys.argv[1]), SharedBuckets.size(16))
buckets = SharedBuckets(region, 16)
assert buckets.wait("r", "k", RateLimit(1.0, 2), 50.0, take=True) == 0.0
with region.writing():
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_killed_in_the_middle_keeps_nothing(tmp_path: Path) -> None:
    """It holds the lock and has taken a token: the lock is free, and the token is back when it is due."""
    program = [sys.executable, "-c", TAKER, str(tmp_path / "b")]
    told = subprocess.run(program, check=False, capture_output=True, text=True, timeout=60)
    assert (told.stdout, told.returncode) == ("held\n", -9), told.stderr
    buckets, limit = of_node(tmp_path / "b", 16), RateLimit(1.0, 2)
    assert buckets.wait("r", "k", limit, 50.0, take=True) == 0.0
    assert buckets.wait("r", "k", limit, 50.0, take=True) == 1.0
    assert buckets.wait("r", "k", limit, 51.0, take=True) == 0.0
    assert buckets.wait("r", "k", limit, 53.0, take=True) == 0.0
    buckets.close()


# -- rules ------------------------------------------------------------------------------------------------


def refusals(rule: Rule, *asked: tuple[str, Headers]) -> list[int]:
    gates = Gates(DrivenClock())
    found = []
    for client, headers in asked:
        trace = Trace(client=client)
        refusal = gates.refusal(rule, RequestHead("GET", "http", "a", "/", headers), trace)
        found.append(0 if refusal is None else refusal.status)
        reasons = {0: None, 403: Unsatisfied.DENIED, 429: Unsatisfied.RATE_LIMITED}
        assert trace.unsatisfied is reasons[found[-1]]
    return found


NONE = Headers(())


def key(value: str) -> Headers:
    return Headers(((b"X-Api-Key", value.encode()),))


def test_what_has_a_limit_of_its_own() -> None:
    by_client = Rule("r", "", rate_limit=RateLimit(1, 1))
    asked = [("192.0.2.1", NONE), ("192.0.2.2", NONE), ("192.0.2.1", NONE),
             ("2001:db8::1", NONE), ("2001:db8::ffff", NONE), ("2001:db8:0:1::1", NONE)]  # fmt: skip
    assert refusals(by_client, *asked) == [0, 0, 429, 0, 429, 0]
    together = Rule("r", "", rate_limit=RateLimit(1, 1, by_client=False))
    assert refusals(together, ("192.0.2.1", NONE), ("192.0.2.2", NONE)) == [0, 429]
    by_key = Rule("r", "", rate_limit=RateLimit(1, 1, header="x-api-key"))
    asked = [("192.0.2.1", key("a")), ("192.0.2.2", key("a")), ("192.0.2.1", key("b")),
             ("192.0.2.1", NONE), ("192.0.2.2", NONE), ("192.0.2.1", NONE),
             ("192.0.2.9", key("192.0.2.1"))]  # fmt: skip
    assert refusals(by_key, *asked) == [0, 429, 0, 0, 0, 429, 0], "a key never is another's address"


def test_who_is_answered() -> None:
    rule = Rule(
        "r", "", clients=Clients(Networks(networks_in("10.0.0.0/8")), Networks(networks_in("10.9.9.9")))
    )
    asked = [
        ("10.1.1.1", NONE),
        ("10.9.9.9", NONE),
        ("192.0.2.1", NONE),
        ("::ffff:10.1.1.1", NONE),
        ("", NONE),
    ]
    assert refusals(rule, *asked) == [0, 403, 403, 0, 403]
