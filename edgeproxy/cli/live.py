"""What a running edgeproxy has of one URL, for ``edgeproxy explain --admin``.

Rules of this file: reads only; the answer that is explained is the one that is stored, or the one that was
not, where the instance remembers it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from edgeproxy.cli import client
from edgeproxy.rules.last_answer import LastAnswer, Source, last_answer
from edgeproxy.rules.values import show_duration

if TYPE_CHECKING:
    import argparse

    from edgeproxy.policy.head import RequestHead

_TOKENS = ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_ADMIN_TOKEN")


@dataclass(frozen=True, slots=True)
class Live:
    """``variants``: what is stored; ``refused``: why the last answer was not; ``version`` and ``source`` of
    the rules in force there; ``not_asked``: why nothing is said of what is stored."""

    variants: list[dict[str, Any]]
    refused: dict[str, Any] | None
    version: str
    source: str
    not_asked: str = ""

    def unasked(self, request: RequestHead) -> Live:
        """Of a path alone nothing is known where the host is part of the key."""
        why = f"the key has the host in it; write the whole URL, such as http://api.example{request.target}"
        return replace(self, variants=[], refused=None, not_asked=why)

    def answer(self, method: str) -> LastAnswer | None:
        """The answer that is stored or was not; None where nothing is known of one."""
        return last_answer(method, self.variants, self.refused)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rules = {"version": self.version, "source": self.source}
        told = {"variants": self.variants, "refused": self.refused, "rules": rules}
        return {**told, "not_asked": self.not_asked} if self.not_asked else told

    def text(self, version: str) -> list[str]:
        """A line each. ``version``: of the rules that explain it."""
        lines = [_variant(each) for each in self.variants]
        last = self.answer("GET")
        if self.refused is not None and last is not None and last.source is Source.REFUSED:
            seconds = show_duration(round(self.refused["age"]))
            lines.append(f"the last answer was not stored: {self.refused['reason']} ({seconds} ago)")
        lines = lines or [f"not known: {self.not_asked}" if self.not_asked else "nothing stored"]
        if self.version != version:
            lines.append(
                f"under other rules: version {self.version} of {self.source}, and these are {version}"
            )
        return [client.printable(f"{'live' if not at else '':<8} {line}") for at, line in enumerate(lines)]


def live(args: argparse.Namespace, request: RequestHead) -> Live:
    """Raises client.Usage and client.Failed."""
    url = f"{request.scheme}://{request.host}{request.target}"
    query = [("url", url), *(("header", f"{n}: {v}") for n, v in _fields(request))]
    found = client.call(
        args, "GET", f"/api/cache/entry?{urlencode(query)}", tokens=_TOKENS, accept=(200, 404)
    )
    rules = client.call(args, "GET", "/api/rules", tokens=_TOKENS).body
    told = found.body
    if not isinstance(told, dict) or not isinstance(rules, dict) or "version" not in rules:
        raise client.Failed("the answer is not what edgeproxy says of an entry")
    variants = told.get("variants", []) if found.status == 200 else []
    return Live(variants, told.get("refused"), str(rules["version"]), str(rules.get("source")))


def _fields(request: RequestHead) -> list[tuple[str, str]]:
    return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.headers.raw]


def _variant(told: dict[str, Any]) -> str:
    left = round(told["ttl"])
    if told["must_validate"]:
        state = "validated before each use"
    elif told["fresh"]:
        state = f"fresh for {show_duration(left)} more"
    else:
        state = f"stale for {show_duration(-left)}"
    vary = ", ".join(f"{name}: {value or '-'}" for name, value in told["vary"].items())
    parts = [
        f"stored {told['status']}", f"{show_duration(round(told['age']))} old", state,
        client.counted(told["hits"], "hit"), client.octets(told["length"]), f"rule {told['rule']}",
    ]  # fmt: skip
    parts += [f"tags {' '.join(told['tags'])}"] * bool(told["tags"])
    parts += [f"for {vary}"] * bool(vary)
    return ", ".join(parts)
