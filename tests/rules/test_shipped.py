"""What is shipped: the rule files, their schema and their reference are of one piece."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.policy.head import Headers, RequestHead, ResponseHead
from edgeproxy.policy.stored import Unsafe
from edgeproxy.rules import keys
from edgeproxy.rules.document import Mapping, Node, Scalar, Sequence, parse
from edgeproxy.rules.explain import explain
from edgeproxy.rules.kinds import Key, Table
from edgeproxy.rules.load import load_rules, load_text
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.outcome import outcome
from edgeproxy.rules.problems import Problems
from edgeproxy.rules.reference import BODIES, HEAD, reference
from edgeproxy.rules.schema import json_schema, schema_text

RULES = Path(__file__).parents[2] / "rules"
FILES = sorted(RULES.glob("*.yaml"))


def matcher() -> Matcher:
    return Matcher(load_rules(RULES))


def ask(target: str, method: str = "GET", **headers: str) -> RequestHead:
    return RequestHead(method, "http", "h", target, Headers.of(headers.items()))


# -- the tiers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "rule", "ttl", "window"),
    [
        ("/static/app.css", "static", 7 * 86400, 86400),
        ("/api/profiles/7", "profiles", 3600, 300),
        ("/api/pitches", "pitches", 900, 60),
        ("/api/pitches/7", "pitches", 900, 60),
        ("/api/pitches/trending", "trending-and-new", 300, 60),
        ("/api/pitches/new", "trending-and-new", 300, 60),
        ("/api/search?q=a", "search", 300, 30),
        ("/api/live/7", "live", 30, 5),
        ("/api/elsewhere", "none", 0, 0),
    ],
)
def test_the_tiers(target: str, rule: str, ttl: float, window: float) -> None:
    request = ask(target)
    came = outcome(matcher().match(request), request)
    assert (came.matched.rule.name, came.ttl, came.stale_while_revalidate) == (rule, ttl, window)


def test_every_shipped_rule_has_examples() -> None:
    assert [r.name for r in load_rules(RULES).rules if not r.examples] == []


def test_shipped_rules_share_nothing_that_forbids_it() -> None:
    words = {r.name: r.overrides.unsafe for r in load_rules(RULES).rules if r.overrides.unsafe}
    assert words == {"notifications": {Unsafe.AUTHORIZATION}}


PEOPLE: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer one"},
    {"authorization": "Bearer two"},
    {"cookie": "session=one"},
    {"cookie": "session=two"},
    {"cookie": "session=one", "authorization": "Bearer one"},
    {"cookie": "lb=1", "x-user-id": "1"},
    {"cookie": "lb=1", "x-user-id": "2"},
    {"authorization": "Bearer one", "x-api-key": "k"},
]


@pytest.mark.parametrize("target", ["/api/notifications", "/api/notifications/unread?page=1"])
def test_nobody_gets_another_persons_notifications(target: str) -> None:
    made = matcher()
    keys_given = []
    for person in PEOPLE:
        request = ask(target, **person)
        came = outcome(made.match(request), request)
        assert came.cached == bool(person), person
        keys_given.append(came.key.primary)
    assert len(set(keys_given)) == len(PEOPLE)


def test_notifications_of_nobody_are_passed() -> None:
    assert explain(matcher(), ask("/api/notifications")).to_json()["decision"] == "pass"


@pytest.mark.parametrize("said", ["private", "no-store", "private, max-age=30"])
def test_notifications_that_say_private_stay_private(said: str) -> None:
    request = ask("/api/notifications", authorization="Bearer one")
    answer = ResponseHead(200, "", Headers.of([("Cache-Control", said)]))
    assert not outcome(matcher().match(request), request, answer).cached


def test_a_profile_with_a_cookie_is_that_browsers_own() -> None:
    made = matcher()

    def key(**headers: str) -> str:
        request = ask("/api/profiles/me", **headers)
        return outcome(made.match(request), request).key.primary

    assert len({key(), key(cookie="s=1"), key(cookie="s=2")}) == 3


@pytest.mark.parametrize("target", ["/account/me.css", "/static/..%2fapi/notifications", "/static/../api/me"])
def test_nothing_private_hides_behind_a_static_name(target: str) -> None:
    request = ask(target, cookie="session=one")
    assert not outcome(matcher().match(request), request).cached


# -- schema and reference ------------------------------------------------------------------------------


def as_json(node: Node) -> Any:
    """What an editor's YAML 1.2 reader makes of it: on and off are words."""
    if isinstance(node, Mapping):
        return {key.text: as_json(value) for key, value in node.pairs}
    if isinstance(node, Sequence):
        return [as_json(item) for item in node.items]
    assert isinstance(node, Scalar)
    if node.quoted:
        return node.text
    if node.text in ("true", "false"):
        return node.text == "true"
    if re.fullmatch(r"[0-9]+", node.text):
        return int(node.text)
    return float(node.text) if re.fullmatch(r"[0-9]+\.[0-9]+", node.text) else node.text


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,),
    "number": (int, float),
}  # fmt: skip


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "") -> list[str]:
    """A small validator: the words that our schema uses, and no others."""
    known = {
        "$schema", "$defs", "$ref", "title", "description", "type", "properties", "required", "items",
        "minItems",
        "additionalProperties", "propertyNames", "anyOf", "enum", "pattern", "minimum", "maximum",
    }  # fmt: skip
    assert schema.keys() <= known, schema.keys() - known
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return faults(value, target, root, where)
    found: list[str] = []
    if "anyOf" in schema and all(faults(value, each, root, where) for each in schema["anyOf"]):
        found.append(f"{where}: none of anyOf")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} not in enum")
    types = schema.get("type", list(TYPES))
    allowed = [t for name in ([types] if isinstance(types, str) else types) for t in TYPES[name]]
    if not any(type(value) is t for t in allowed):
        return [*found, f"{where}: {value!r} is not {types}"]
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(f"{where}: {value!r} does not match {schema['pattern']}")
    if isinstance(value, (int, float)) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
    ):
        found.append(f"{where}: {value!r} out of bounds")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            found.append(f"{where}: too few items")
        for i, item in enumerate(value):
            found += faults(item, schema.get("items", {}), root, f"{where}[{i}]")
    if isinstance(value, dict):
        found += [f"{where}: {name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, inner in value.items():
            found += faults(name, schema.get("propertyNames", {}), root, f"{where}.{name}")
            each = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            if each is False:
                found.append(f"{where}.{name}: unknown")
            else:
                found += faults(inner, each, root, f"{where}.{name}")
    return found


def check(text: str) -> list[str]:
    root = parse(text, Problems("x"))
    assert root is not None
    schema = json_schema()
    return faults(as_json(root), schema, schema)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_shipped_files_fit_the_schema(path: Path) -> None:
    assert check(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "rules: []",
        "rule: []",
        "rules: [{name: a, tll: 1}]",
        "rules: [{name: a b}]",
        "rules: [{name: a, ttl: 5x}]",
        "rules: [{name: a, unsafe: [cookie]}]",
        "defaults: {name: a}\nrules: [{name: a}]",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text: str) -> None:
    assert check(text)


def test_the_shipped_schema_is_current() -> None:
    assert (RULES / "schema.json").read_text() == schema_text()
    assert json.loads(schema_text()) == json_schema()


def test_the_shipped_reference_is_current() -> None:
    assert (RULES / "README.md").read_text() == reference()


def test_the_reference_has_every_key() -> None:
    text = reference()
    for table in (
        keys.RULE,
        keys.MATCH,
        keys.KEY,
        keys.QUERY,
        keys.BODY,
        keys.INVALIDATION,
        keys.EXPECT,
        keys.EXAMPLE,
    ):
        assert isinstance(table, Table)
        assert [k.name for k in table.keys if f"| `{k.name}` |" not in text] == []
    assert all(f"| `{word.value}` |" in text for word in Unsafe)


def test_the_head_and_the_recipes_of_the_reference_load() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", HEAD + BODIES, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        load_text(block)
        assert check(block) == []


@pytest.mark.parametrize("key", [*keys.RULE.keys, *keys.MATCH.keys, *keys.KEY.keys], ids=lambda k: k.name)
def test_each_example_of_the_reference_loads(key: Key) -> None:
    lines = {"name": "name: x", "match": 'match: {path: ["/{id}", "/"]}'}
    lines[key.example.partition(":")[0]] = key.example
    if key.name == "examples":
        lines["ttl"] = "ttl: 1m"
    text = "rules:\n  - " + "\n    ".join(lines.values()) + "\n"
    load_text(text)
    assert check(text) == []
