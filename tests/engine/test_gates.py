"""Token buckets and address lists of rules, beside a model of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.gates import Buckets, Gates
from edgeproxy.networks import Networks, networks_in
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.policy.vocabulary import Unsatisfied
from edgeproxy.rules.model import Clients, RateLimit, Rule
from tests.support.driven import DrivenClock


@given(
    rate=st.sampled_from([0.5, 2.0, 10.0]),
    burst=st.integers(1, 5),
    pauses=st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 4.0]), max_size=40),
)
def test_a_bucket_lets_through_what_a_model_of_tokens_does(
    rate: float, burst: int, pauses: list[float]
) -> None:
    buckets, limit = Buckets(), RateLimit(rate, burst)
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
