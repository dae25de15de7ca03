"""Pools in rule files: what they mean, and what is said of what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.rules.load import load_bytes, load_text
from edgeproxy.rules.pool_keys import POOL_TABLE
from edgeproxy.rules.pools import Given, Limits, OriginSpec, PoolSpec, Timeouts, Tls
from edgeproxy.rules.problems import RuleError

if TYPE_CHECKING:
    from edgeproxy.rules.model import RuleSet

RULE = "rules: [{name: a, match: {path: /a}, origin: api}]\n"
FULL = """
pools:
  api:
    origins: [{url: "http://10.0.0.1:8080/", weight: 3}, "http+unix://%2Frun%2Fapi.sock", "unix:/run/b.sock"]
    balance: latency
    fallback: direct
    health: {path: /healthz, interval: 10s, timeout: 500ms, up: 1, down: 2, host: api.example}
    ejection: {failures: 3, slow: 4, base: 2s, longest: 1m, percent: 30}
    breaker: off
    retries: {attempts: 2, on: [connect, 5xx], backoff: 10ms, longest: 2s, budget: 10, least: 1}
    timeouts: {connect: 1s, tls: 2s, first_byte: 3s, between_bytes: 4s, whole: 1m}
    limits: {concurrent: 10, queue: 0, wait: 100ms}
    canary: {origins: ["http://10.0.0.9"], percent: 1.5, errors: 2, slow: 1.5, requests: 50}
    tls: {server_name: api.internal, verify: false}
  direct: {origins: https://api.example}
"""


def load(text: str) -> RuleSet:
    return load_text(text)


def refused(text: str) -> str:
    with pytest.raises(RuleError) as caught:
        load_text(text)
    return str(caught.value)


def test_all_that_can_be_said() -> None:
    loaded = load(RULE + FULL)
    api, direct = loaded.pools
    assert loaded.rules[0].origin == "api"
    assert api.origins == (
        OriginSpec("http://10.0.0.1:8080", 3),
        OriginSpec("unix:/run/api.sock"),
        OriginSpec("unix:/run/b.sock"),
    )
    assert (api.balance, api.fallback, api.breaker.enabled) == ("latency", "direct", False)
    assert api.health is not None
    assert (api.health.interval, api.health.timeout, api.health.host) == (10.0, 0.5, "api.example")
    assert (api.ejection.failures, api.ejection.percent) == (3, 30.0)
    assert (api.retries.on, api.retries.least) == (frozenset({"connect", "5xx"}), 1)
    assert api.timeouts == Timeouts(1.0, 2.0, 3.0, 4.0, 60.0)
    assert api.limits == Limits(10, 0, 0.1)
    assert api.canary is not None
    assert (api.canary.percent, api.canary.origins) == (1.5, (OriginSpec("http://10.0.0.9"),))
    assert api.tls == Tls(server_name="api.internal", verify=False)
    assert direct == PoolSpec("direct", direct.at, (OriginSpec("https://api.example"),))
    assert direct.at == "rules.yaml:16"


def test_the_command_line_lies_beneath() -> None:
    given = Given(("http://a", "http://b"), Timeouts(connect=9.0, first_byte=8.0, between_bytes=7.0), 99)
    (default,) = given.completed(())
    assert [o.url for o in default.origins] == ["http://a", "http://b"]
    assert default.limits.concurrent == 99
    loaded = load("pools: {default: {timeouts: {connect: 1s}, retries: {attempts: 0}}}")
    (default,) = given.completed(loaded.pools)
    assert [o.url for o in default.origins] == ["http://a", "http://b"]
    assert default.timeouts == Timeouts(connect=1.0, first_byte=8.0, between_bytes=7.0)
    assert default.retries.attempts == 0
    other = given.completed(load("pools: {default: {origins: http://c}, x: {origins: http://d}}").pools)
    assert [[o.url for o in pool.origins] for pool in other] == [["http://c"], ["http://d"]]


def test_pools_and_rules_may_be_in_different_files() -> None:
    loaded = load_bytes(
        [("a.yaml", b"rules: [{name: a, match: {path: /a}, origin: api}]"),
         ("z.yaml", b"pools: {api: {origins: http://a}}")],
        source="x",
    )  # fmt: skip
    assert [pool.name for pool in loaded.pools] == ["api"]
    with pytest.raises(RuleError) as caught:
        load_bytes(
            [
                ("a.yaml", b"pools: {api: {origins: http://a}}"),
                ("b.yaml", b"pools: {api: {origins: http://b}}"),
            ],
            source="x",
        )
    assert str(caught.value) == "b.yaml:1:1: pools.api: the pool is given at a.yaml:1 already"


WRONG = {
    "pools: [a]": "1:8: pools: expected a mapping of names to pools",
    "pools: {api: {}}": 'pools.api: expected the key "origins" (only the pool default may leave it out)',
    "pools: {a b: {origins: http://a}}": "pools.a b: expected a pool's name of letters",
    "pools: {api: {origin: http://a}}": 'pools.api.origin: unknown key "origin"; did you mean "origins"?',
    "pools: {api: {servers: http://a}}": 'unknown key "servers"; write "origins"',
    "pools: {api: {origins: http://a/path}}": "expected a URL without a path such as http://10.0.0.1:8080",
    "pools: {api: {origins: ftp://a}}": 'got "ftp://a"',
    "pools: {api: {origins: http://a:99999}}": "expected a URL",
    "pools: {api: {origins: [http://a, http://a]}}": "http://a is given twice; use weight",
    "pools: {api: {origins: [{url: http://a, weight: 0}]}}": "expected a whole number, 1 or more",
    "pools: {api: {origins: [{weight: 1}]}}": 'expected the key "url"',
    "pools: {api: {origins: http://a, balance: roundrobin}}": "round_robin",
    "pools: {api: {origins: http://a, fallback: apo}}": 'no pool is called "apo"; did you mean "api"?',
    "pools: {a: {origins: http://a, fallback: b}, b: {origins: http://b, fallback: a}}": "leads back to this",
    "pools: {api: {origins: http://a, health: {interval: 5s}}}": 'expected the key "path"',
    "pools: {api: {origins: http://a, health: {path: x}}}": "pools.api.health.path",
    "pools: {api: {origins: http://a, timeouts: {connect: 0}}}": "expected a duration longer than 0",
    "pools: {api: {origins: http://a, timeouts: {read: 1s}}}": 'write "between_bytes"',
    "pools: {api: {origins: http://a, breaker: {ratio: 2}}}": "expected a number from 0 to 1",
    "pools: {api: {origins: http://a, retries: {on: [4xx]}}}": "pools.api.retries.on",
    "pools: {api: {origins: http://a, canary: {percent: 5}}}": 'expected the key "origins"',
    "pools: {api: {origins: https://a, tls: {ca: own.pem}}}": "expected an absolute path",
    "pools: {api: {origins: https://a, tls: {ca: /nowhere/own.pem}}}": "ca: /nowhere/own.pem: No such file",
    "pools: {api: {origins: https://a, tls: {cert: /nowhere/a.pem}}}": "cert: /nowhere/a.pem: No such file",
    "pools: {api: {origins: https://a, tls: {key: /nowhere/a.pem}}}": "expected cert beside key",
    "rules: [{name: a, match: {path: /a}, origin: nobody}]": 'no pool is called "nobody"; known are default',
    "rules: [{name: a, match: {path: /a}, backend: x}]": 'unknown key "backend"; write "origin"',
    "pool: {}": 'unknown key "pool"; did you mean "pools"?',
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_with_its_place(text: str) -> None:
    said = refused(text)
    assert WRONG[text] in said
    assert said.startswith("rules.yaml:1:")


def test_a_pool_that_is_not_there_is_told_where_its_name_stands() -> None:
    """In a rule, in a pool, and once for the defaults of a file."""
    said = refused(
        "pools:\n  api:\n    origins: [http://a]\n    fallback: apo\n"
        "rules:\n  - name: a\n    match: {path: /a}\n    origin: nobody\n"
    )
    assert said.splitlines() == [
        'rules.yaml:4:15: pools.api.fallback: no pool is called "apo"; did you mean "api"?',
        'rules.yaml:8:13: rules[0].origin: no pool is called "nobody"; known are api, default',
    ]
    rules = "rules: [{name: a, match: {path: /a}}, {name: b, match: {path: /b}}]\n"
    said = refused(f"{rules}defaults: {{origin: nobody}}\n")
    assert said == 'rules.yaml:2:20: rules[0].origin: no pool is called "nobody"; known are default'


@pytest.mark.parametrize("key", POOL_TABLE.keys, ids=lambda key: key.name)
def test_each_example_of_the_reference_loads(key: object) -> None:
    example = str(getattr(key, "example"))  # noqa: B009
    example = example.replace(", ca: /etc/ssl/own.pem", "")
    origins = "" if example.startswith("origins") else "origins: [http://a], "
    load(f"pools: {{api: {{{origins}{example}}}, direct: {{origins: http://b}}}}")
