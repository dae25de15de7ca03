"""Rule files to rules, and every way to be refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.policy.content import ContentForm
from edgeproxy.policy.stored import Compression, Unsafe
from edgeproxy.rules.document import MAX_BYTES
from edgeproxy.rules.load import load_rules, load_text
from edgeproxy.rules.model import BodyPolicy, Coalesce, HeaderOps, Invalidation, KeyPolicy, Rule, TagPolicy
from edgeproxy.rules.problems import MOST, RuleError

if TYPE_CHECKING:
    from pathlib import Path

LEAST = 'rules: [{name: pitches, match: {path: "/api/pitches/**"}, ttl: 15m}]'

EVERYTHING = """
rules:
  - name: everything
    match:
      path: ["/a/{id}", "~/b/.*"]
      host: ["API.example", "*.example"]
      method: [get, POST]
      headers: {X-A: true, x-b: false, x-c: [1, two], x-d: "~v[0-9]+", x-e: "true"}
      cookies: {session: false}
      query: {page: 1}
    ttl: {min: 10s, max: 1h}
    status_ttl: {404: 1m, 5xx: 0}
    stale_while_revalidate: 1m
    stale_if_error: 1h30m
    keep: 1d
    cache_control: "private, max-age=60"
    cdn_cache_control: no-store
    key:
      query: {allow: [q], ignore: "utm_*", sort: true}
      headers: [X-Tenant]
      cookies: session
      host: false
    normalise: {Accept-Language: [de, en]}
    tags: ["a:{id}", all]
    tags_from: [X-Tags]
    invalidates:
      - {on: POST, tags: ["a:{id}"], urls: ["/a/{id}?x=1"], prefixes: /b, soft: yes}
    request_headers: {remove: Cookie, set: {X-Edge: 1}}
    response_headers: {add: {Link: [one, two]}}
    compression: {minimum: 2KiB, types: text/html, codings: [gzip]}
    coalesce: {wait: 250ms, lease: 1s}
    max_object: 1MiB
    range: whole
    request_directives: ignore
    heuristic: off
    pass: off
    no_store: no
    unsafe: [set_cookie, private]
    examples:
      - request: GET http://api.example/a/1?page=1
        headers: {X-A: 1, X-C: two, X-D: v1, X-E: "true"}
        response: {status: 200, headers: {Cache-Control: [max-age=60, public]}}
        expect: {rule: everything, cached: true}
"""


def one(text: str) -> Rule:
    (rule,) = load_text(text).rules
    return rule


def refused(text: str) -> str:
    with pytest.raises(RuleError) as caught:
        load_text(text)
    return str(caught.value)


def test_the_least_file() -> None:
    rule = one(LEAST)
    assert (rule.name, rule.at, rule.overrides.ttl) == ("pitches", "rules.yaml:1", 900.0)
    assert [p.source for p in rule.match.paths] == ["/api/pitches/**"]


def test_everything_can_be_said() -> None:
    rule = one(EVERYTHING)
    match, overrides = rule.match, rule.overrides
    assert rule.at == "rules.yaml:3"
    assert [p.source for p in match.paths] == ["/a/{id}", "~/b/.*"]
    assert match.hosts == ("api.example", "*.example")
    assert match.methods == {"GET", "POST"}
    conditions = {c.name: c for c in match.headers}
    assert conditions["x-a"].present
    assert not conditions["x-b"].present
    assert conditions["x-c"].values == {"1", "two"}
    assert conditions["x-d"].regex == re.compile("v[0-9]+")
    assert conditions["x-e"].values == {"true"}
    assert [(c.name, c.present) for c in match.cookies] == [("session", False)]
    assert [(c.name, c.values) for c in match.query] == [("page", frozenset({"1"}))]
    assert (overrides.ttl, overrides.ttl_min, overrides.ttl_max) == (None, 10, 3600)
    assert overrides.status_ttl == {404: 60, 5: 0}
    assert (overrides.stale_while_revalidate, overrides.stale_if_error, overrides.keep) == (60, 5400, 86400)
    assert overrides.unsafe == {Unsafe.SET_COOKIE, Unsafe.PRIVATE}
    assert not overrides.honour_request_directives
    assert not overrides.heuristic
    assert not overrides.pass_
    assert not overrides.no_store
    assert overrides.max_object == 1 << 20
    assert not overrides.parts
    assert overrides.compression == Compression(minimum=2048, types=("text/html",), codings=("gzip",))
    assert overrides.normalise == {"accept-language": ("de", "en")}
    assert rule.key == KeyPolicy(
        host=False, query_allow=("q",), query_ignore=("utm_*",), sort=True, headers=("x-tenant",),
        cookies=("session",), scope=rule.key.scope,
    )  # fmt: skip
    assert rule.key.scope  # it has conditions beside path and host
    assert rule.tags == TagPolicy(("a:{id}", "all"), ("x-tags",))
    assert rule.invalidates == (
        Invalidation(frozenset({"POST"}), ("a:{id}",), ("/a/{id}?x=1",), ("/b",), soft=True),
    )
    assert rule.client_cache_control == "private, max-age=60"
    assert rule.cdn_cache_control == "no-store"
    assert rule.request_headers == HeaderOps(("cookie",), (("X-Edge", "1"),))
    assert rule.response_headers == HeaderOps(add=(("Link", "one"), ("Link", "two")))
    assert rule.coalesce == Coalesce(wait=0.25, lease=1)
    (example,) = rule.examples
    assert example.at == "rules.yaml:40"
    assert example.response_headers == (("cache-control", "max-age=60"), ("cache-control", "public"))


@pytest.mark.parametrize(
    ("keys", "policy"),
    [
        ("key: {query: none}", KeyPolicy(query_allow=())),
        ("key: {query: all}", KeyPolicy()),
        ("key: {query: {allow: []}}", KeyPolicy(query_allow=())),
    ],
)
def test_shorthands_of_the_query(keys: str, policy: KeyPolicy) -> None:
    assert one(f"rules: [{{name: a, match: {{path: /a}}, {keys}}}]").key == policy


@pytest.mark.parametrize(
    ("keys", "policy"),
    [
        ("body: exact", BodyPolicy()),
        ("body: {}", BodyPolicy()),
        ("body: json", BodyPolicy(ContentForm.JSON)),
        ("body: graphql", BodyPolicy(ContentForm.GRAPHQL, frozenset({"QUERY", "POST"}))),
        ("body: {as: graphql, methods: query, persisted: on}",
         BodyPolicy(ContentForm.GRAPHQL, frozenset({"QUERY"}), persisted=True)),
        ("body: {as: json, methods: [post], limit: 1MiB}",
         BodyPolicy(ContentForm.JSON, frozenset({"POST"}), 1024 * 1024)),
    ],
)  # fmt: skip
def test_bodies_in_the_key(keys: str, policy: BodyPolicy) -> None:
    rule = one(f"rules: [{{name: a, match: {{path: /a}}, key: {{{keys}}}}}]")
    assert rule.key.body == policy


def test_the_extension_guard() -> None:
    said = [
        one(R + f"{keys}}}]").overrides.extension_guard
        for keys in ("ttl: 1m", "extension_guard: on", "extension_guard: off")
    ]
    assert said == [None, True, False]


def test_switches() -> None:
    rule = one(
        "rules: [{name: a, match: {path: /a}, compression: off, coalesce: off, pass: on, no_store: true}]"
    )
    assert not rule.overrides.compression.enabled
    assert not rule.coalesce.enabled
    assert rule.overrides.pass_
    assert rule.overrides.no_store


def test_origin_is_the_default_ttl() -> None:
    assert one("rules: [{name: a, match: {path: /a}, ttl: origin}]") == one(
        "rules: [{name: a, match: {path: /a}}]"
    )


def test_defaults_lie_beneath_each_rule() -> None:
    first, second = load_text("""
defaults:
  match: {host: api.example}
  ttl: 1m
  tags: [all]
  status_ttl: {404: 5s, 410: 1h}
rules:
  - {name: a, match: {path: /a}}
  - {name: b, match: {path: /b, host: b.example}, ttl: 2m, tags: [b], status_ttl: {404: 0}}
""").rules
    assert (first.match.hosts, second.match.hosts) == (("api.example",), ("b.example",))
    assert (first.overrides.ttl, second.overrides.ttl) == (60, 120)
    assert (first.tags.templates, second.tags.templates) == (("all",), ("b",))
    assert second.overrides.status_ttl == {404: 0, 410: 3600}


def test_files_are_read_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "20.yml").write_text("rules: [{name: second, match: {path: /**}}]")
    (tmp_path / "10.yaml").write_text("# first\nrules:\n  - match: {path: /a}\n    name: first")
    (tmp_path / "README.md").write_text("{")
    (tmp_path / ".hidden.yaml").write_text("{")
    ruleset = load_rules(tmp_path)
    assert [(r.name, r.at) for r in ruleset.rules] == [("first", "10.yaml:3"), ("second", "20.yml:1")]
    before = ruleset.version
    (tmp_path / "20.yml").write_text("rules: [{name: second, match: {path: /*}}]")
    assert load_rules(tmp_path).version != before
    assert [r.name for r in load_rules(tmp_path / "10.yaml").rules] == ["first"]


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "rules:\n  - name: a\n    match: {path: x/y}\n    ttl: 5x\n    tll: 1m\n"
    )
    (tmp_path / "b.yaml").write_text("rules: []")
    with pytest.raises(RuleError) as caught:
        load_rules(tmp_path)
    assert [(p.file, p.line, p.column, p.key) for p in caught.value.problems] == [
        ("a.yaml", 3, 19, "rules[0].match.path"),
        ("a.yaml", 4, 10, "rules[0].ttl"),
        ("a.yaml", 5, 5, "rules[0].tll"),
        ("b.yaml", 1, 8, "rules"),
    ]
    assert 'a.yaml:5:5: rules[0].tll: unknown key "tll"; did you mean "ttl"?' in str(caught.value)


R = "rules: [{name: a, match: {path: /a}, "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("# nothing", "empty"),
        ("[]", "expected a mapping with the key rules, got a list"),
        ("rules:", "expected a list of rules, got nothing"),
        ("rules: {}", "expected a list of rules, got a mapping"),
        ("rule: []", '1:1: rule: unknown key "rule"; did you mean "rules"?'),
        ("rules: [{}]", 'expected the key "name"'),
        ("rules: [{name: a}]", 'expected the key "match"'),
        ("rules: [a]", 'expected a rule: a mapping with name, match, ttl ..., got "a"'),
        ("rules: [{name: a, match: {}}]", "at least one condition"),
        ("rules: [{name: none, match: {path: /}}]", "another name"),
        (R + "ttl: }]", "rules[0].ttl: expected a duration such as 15m, or origin"),
        (R + "ttl: soon}]", 'got "soon"'),
        (R + "ttl: [1]}]", "got a list"),
        (R + "ttl: {min: 2m, max: 1m}}]", "min to be no more than max"),
        (R + "ttl: 1m, ttl: 2m}]", "given twice"),
        (R + "swr: 1m}]", 'write "stale_while_revalidate"'),
        (R + "path: /b}]", "write it under match"),
        (R + "unsafe: set-cooky}]", 'did you mean "set_cookie"'),
        (R + "status_ttl: {600: 1m}}]", "a status such as 404"),
        (R + "tags: ['p:{id}']}]", '"{id}" is not named in match.path (named there: none)'),
        (R + "invalidates: {on: GET, tags: [a]}}]", "a method that changes something"),
        (R + "invalidates: {on: POST}}]", "expected tags, urls or prefixes"),
        (R + "invalidates: {urls: ['/x/{y}']}}]", '"{y}" is not named'),
        (R + "request_headers: {set: {Content-Length: 1}}}]", "belongs to the connection"),
        (R + "response_headers: {set: {x-a: 1, X-A: 2}}}]", "given twice, in another writing"),
        (R + 'response_headers: {set: {x-a: "a\\r\\nb: c"}}}]', "no line breaks"),
        (R + "response_headers: {set: {set-cookie: a=b}}}]", "unsafe: [set_cookie]"),
        (R + "normalise: {cookie: [a]}}]", "one user's answers to all others"),
        (R + "key: {cookies: [s]}, cache_control: 'public, max-age=1'}]", "say private"),
        (R + "key: {headers: [authorization]}, cdn_cache_control: max-age=9}]", "say private"),
        (R + "key: {query: non}}]", 'did you mean "none"'),
        (R + "compression: sometimes}]", "true or false"),
        (R + "examples: [{request: a b c}]}]", 'expected "METHOD /target"'),
        (R + "examples: [{request: /a, expect: {reason: because}}]}]", "expected"),
        (R + "key: {body: yaml}}]",
         'rules.yaml:1:50: rules[0].key.body: expected exact, json or graphql, got "yaml"'),
        (R + "key: {body: {as: jsn}}}]", 'did you mean "json"'),
        (R + "key: {body: {methods: [GET]}}}]", "key.body.methods[0]: expected QUERY or POST, got"),
        (R + "key: {body: {methods: []}}}]", "got an empty list"),
        (R + "key: {body: {limit: 2MiB}}}]", "key.body.limit: expected at most 1MiB: it is held in memory"),
        (R + "key: {body: {as: json, persisted: on}}}]", "only means something with as: graphql"),
        (R + "key: {body: {form: json}}}]", 'write "as"'),
        (R + "body: json}]", "write key: {body: ...}"),
        (R + "guard: on}]", 'write "extension_guard"'),
        (R + "extension_guard: maybe}]", "expected true or false"),
        (R + "invalidates: {on: QUERY, tags: [a]}}]", "a method that changes something"),
        ("rules: [{name: a, match: {path: /a, method: [GET, POST]}, key: {body: json}}]",
         "key.body: never happens: match.method does not cover QUERY"),
        ("rules: [{name: a, match: {path: '~(a+)+'}}]", "exponential"),
        ("rules: [{name: a, match: {path: /a, method: GET}, invalidates: {on: POST, tags: [a]}}]",
         "never happens"),
        ("rules: [{name: a, match: {path: /a}}, {name: a, match: {path: /b}}]", "is the name of the rule at"),
        ("rules: &x [*x]", "anchors and aliases"),
        ("rules: [{name: a, match: {path: **}}]", "in quotes"),
        ("rules: [!!python/object:os.system {}]", "explicit tags"),
        ("a: 1\n---\nb: 2", "one document"),
        ("rules: [{? [a] : b}]", "a plain word as key"),
        ("rules: [" + "[" * 5000, "nested more than"),
        ("rules: [" + "{a: " * 5000, "nested more than"),
        ("rules: [{name: a", "not YAML"),
        ("rules: [\x00]", "not YAML"),
        ("x" * (MAX_BYTES + 1), "larger than 1 MiB"),
        ("defaults: {name: a}\n" + LEAST, "each rule has its own"),
        ("defaults: []\n" + LEAST, "expected a mapping with keys of a rule, got a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    assert said in refused(text)


def test_a_problem_in_the_defaults_is_said_once() -> None:
    text = "defaults: {ttl: 5x}\nrules: [{name: a, match: {path: /a}}, {name: b, match: {path: /b}}]"
    (line,) = refused(text).splitlines()
    assert line.startswith("rules.yaml:1:17: defaults.ttl: expected a duration")


def test_a_flood_of_problems_is_cut() -> None:
    text = "rules:\n" + "".join(f"  - {{name: r{i}, match: {{path: x/y}}}}\n" for i in range(1000))
    lines = refused(text).splitlines()
    assert (len(lines), lines[-1]) == (MOST + 1, f"and {1000 - MOST} more")


def test_nothing_of_a_file_moves_the_cursor() -> None:
    assert "\x1b" not in refused('rules: [{name: "a\\e[2Jb", match: {path: /a}}]')


@pytest.mark.parametrize("make", ["missing", "no files", "not utf-8", "directory", "large"])
def test_unreadable_places(tmp_path: Path, make: str) -> None:
    where = tmp_path / "gone" if make == "missing" else tmp_path
    if make == "not utf-8":
        (tmp_path / "a.yaml").write_bytes(b"rules: \xff")
    if make == "directory":
        (tmp_path / "a.yaml").mkdir()
    if make == "large":
        (tmp_path / "a.yaml").write_bytes(b" " * (MAX_BYTES + 1))
    said = {
        "missing": "cannot be read", "no files": "no rule files", "not utf-8": "not UTF-8",
        "directory": "a plain file", "large": "larger than 1 MiB",
    }  # fmt: skip
    with pytest.raises(RuleError, match=said[make]):
        load_rules(where)


@given(st.text(st.sampled_from("rules: [{}]\n-&*!'\"#~|>%@,?axt0\t\x85é"), max_size=60))
@settings(max_examples=300)
def test_any_text_is_rules_or_a_rule_error(text: str) -> None:
    for whole in (text, R + text + "}]", LEAST + "\n" + text):
        try:
            load_text(whole)
        except RuleError as error:
            assert error.problems  # noqa: PT017


def test_failing_examples_refuse_the_file() -> None:
    said = refused("""
rules:
  - name: a
    match: {path: "/a/{id}"}
    ttl: 1m
    tags: ["a:{id}"]
    examples:
      - request: GET /a/1
        expect: {cached: false, ttl: 2m, tags: ["a:2"], key: /a/2, parts: {id: 2}}
      - request: GET /b
  - name: b
    match: {path: /a/**}
    examples:
      - request: GET /a/1
""")
    assert said.splitlines() == [
        "rules.yaml:8:1: a: example GET /a/1: expected cached: false, got true",
        "rules.yaml:8:1: a: example GET /a/1: expected ttl: 2m, got 1m",
        "rules.yaml:8:1: a: example GET /a/1: expected tags: [a:2], got [a:1]",
        "rules.yaml:8:1: a: example GET /a/1: expected key: /a/2, got http://edge.example/a/1",
        "rules.yaml:8:1: a: example GET /a/1: expected parts: [id: 2], got [id: 1]",
        "rules.yaml:10:1: a: example GET /b: expected rule: a, got none (built-in)",
        "rules.yaml:14:1: b: example GET /a/1: expected rule: b, got a (rules.yaml:3)",
    ]


AUTHORIZED = (
    "(not stored: authorization; would be stored for 15m without it; to store it all the same: "
    "unsafe: [authorization], and key: {headers: [authorization]} lest users see each other's)"
)
HEAD = "a HEAD is answered from what a GET stored and fills nothing: write GET"


@pytest.mark.parametrize(
    ("request_line", "rest", "said"),
    [
        ("GET /a", "headers: {authorization: x},", AUTHORIZED),
        (
            "GET /a",
            "response: {status: 404},",
            "(not stored: no-lifetime; to store it, the rule needs status_ttl: {404: 1m})",
        ),
        ("HEAD /a", "", f"(not stored: method-not-cacheable; {HEAD})"),
        ("POST /a", "", "(not stored: method-not-cacheable)"),
    ],
)
def test_a_failing_example_says_what_it_would_take_once(request_line: str, rest: str, said: str) -> None:
    case = f"request: {request_line}, {rest} expect: {{cached: true, ttl: 15m}}"
    first, second = refused(f"{R}ttl: 15m, examples: [{{{case}}}]}}]").splitlines()
    assert first.endswith(f"expected cached: true, got false {said}")
    assert second.endswith(f"({said[1:-1].partition(';')[0]})")


A = "rules: [{name: a, match: {path: /a}, unsafe: [authorization], "


@pytest.mark.parametrize(
    "keys", ["ttl: 1m", "key: {query: none}", 'cache_control: "private, max-age=5"', "key: {host: false}"]
)
def test_authorized_answers_are_shared_only_where_it_says_with_whom(keys: str) -> None:
    assert refused(A + keys + "}]") == (
        "rules.yaml:1:46: rules[0].unsafe: authorization would give the first user's answer to all others; "
        "write key: {headers: [authorization]} to keep users apart, or key: {headers: []} if all of them get "
        "the same"
    )


@pytest.mark.parametrize(
    "keys",
    [
        "key: {headers: [authorization]}", "key: {headers: []}", "key: {headers: [x-tenant]}",
        "key: {cookies: [session]}", 'cache_control: "public, max-age=5"', "pass: true", "no_store: true",
    ],
)  # fmt: skip
def test_with_whom_can_be_said(keys: str) -> None:
    assert one(A + keys + "}]").overrides.shares_authorized


def test_the_key_may_be_decided_in_the_defaults() -> None:
    assert one("defaults: {key: {headers: [authorization]}}\n" + A + "ttl: 1m}]").key.headers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "rules:\n\t- name: a\n",
            "2:1: not YAML: found character that cannot start any token; there is a tab",
        ),
        ("rules:\n  - name: a\n\tttl: 1m\n", "there is a tab: use spaces"),
        ("rules:\n  - name: a\n  \tttl: 1m\n", "there is a tab: use spaces"),
        ("rules:\n  - name: a\n   ttl: 1m\n", "check the indentation: the keys of one mapping begin in one"),
        ("rules:\n  - name: a\n      ttl: 1m\n", "check the indentation"),
        ("rules:\n  - name: a\n  ttl: 1m\n", "check the indentation"),
        ("rules:\n  - name: a\n    note: b: c\n", '": " goes in quotes'),
    ],
)
def test_faults_of_yaml_say_what_is_most_often_meant(text: str, said: str) -> None:
    assert said in refused(text)


def test_a_bracket_left_open_is_not_taken_for_indentation() -> None:
    assert "indentation" not in refused("rules: [{name: a, match: {path: /a}\n")


def test_three_thousand_rules_load() -> None:
    rules = "".join(f"  - {{name: r{i}, match: {{path: /r{i}}}, ttl: 1m}}\n" for i in range(3000))
    assert len(load_text("rules:\n" + rules).rules) == 3000
