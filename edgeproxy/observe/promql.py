"""Which metrics and labels a PromQL expression speaks of, held against the catalogue.

Rules of this file:

- ``checked`` is the door for every expression of a panel or an alert: what it gives names nothing that a
  scrape does not have. A metric, a label or a function that is not known is an error, never a guess.
- Only words are looked at; whether it parses is Prometheus' to say (promtool, and the test that asks one).
- FUNCTIONS has what we use; Prometheus has more.
"""

from __future__ import annotations

import re

from edgeproxy.observe.catalogue import Kind
from edgeproxy.observe.catalogue_parts import EVERY

FUNCTIONS = frozenset(
    (
        "sum", "max", "min", "avg", "topk", "count", "rate", "increase", "changes", "histogram_quantile",
        "clamp_max", "clamp_min", "time", "label_replace", "absent", "vector",
    )
)  # fmt: skip
KEYWORDS = frozenset(("by", "without", "on", "ignoring", "group_left", "and", "or", "unless", "bool"))
_LISTS = frozenset(("by", "without", "on", "ignoring", "group_left"))
SCRAPED = frozenset(("job", "instance"))
"""Labels that Prometheus puts on whatever it scrapes."""
OF_PROMETHEUS = {"up": SCRAPED}
"""Metrics that it makes itself."""

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")
      | (?P<window>\[[^\]]*\])
      | (?P<word>[A-Za-z_:][A-Za-z0-9_:]*)
      | (?P<number>[0-9][0-9.]*(?:e[-+]?[0-9]+)?)
      | (?P<mark>=~|!~|!=|==|<=|>=|[-+*/%^(){},<>=])
      | (?P<space>\s+)""",
    re.VERBOSE,
)
_SUFFIXES = ("_bucket", "_sum", "_count")


class UnknownName(ValueError):  # noqa: N818 - it is what it is
    """The expression names what no scrape has."""


def labels_of(name: str) -> frozenset[str]:
    """The labels of a series. Raises UnknownName where there is no such metric."""
    if name in OF_PROMETHEUS:
        return OF_PROMETHEUS[name]
    described = EVERY.get(name)
    if described is not None and described.kind is not Kind.HISTOGRAM:
        return SCRAPED | set(described.labels)
    for suffix in _SUFFIXES:
        base = EVERY.get(name.removesuffix(suffix))
        if name.endswith(suffix) and base is not None and base.kind is Kind.HISTOGRAM:
            return SCRAPED | set(base.labels) | ({"le"} if suffix == "_bucket" else set())
    raise UnknownName(f"{name}: there is no such metric")


def metrics(expression: str) -> frozenset[str]:
    """The series that it reads. Raises UnknownName."""
    found: set[str] = set()
    grouped: set[str] = set()
    last = ""  # the metric or the list keyword that a parenthesis or a brace now opens for
    within = ""
    at = 0
    while at < len(expression):
        token = _TOKEN.match(expression, at)
        if token is None:
            raise UnknownName(f"{expression[at:]!r}: not a word of an expression")
        at = token.end()
        text, kind = token[0], token.lastgroup
        if kind == "mark" and text in "({":
            if text == "{" and last not in found:
                raise UnknownName(f"{expression!r}: a selector without a metric")
            within = "{" if text == "{" else ("(" if last in _LISTS else "")
        elif kind == "mark" and text in ")}":
            within = ""
        elif kind == "word" and within == "{":
            if text not in labels_of(last):
                raise UnknownName(f"{last} has no label {text}")
            continue
        elif kind == "word" and within == "(":
            grouped.add(text)
        elif kind == "word" and text not in KEYWORDS and not _called(expression, at, text):
            labels_of(text)
            found.add(text)
        if kind == "word" and within != "(":
            last = text
        elif kind == "mark" and within != "{":
            last = ""
    had = frozenset().union(*map(labels_of, found)) if found else frozenset()
    if grouped - had:
        raise UnknownName(f"{expression!r}: nothing in it has the label {', '.join(sorted(grouped - had))}")
    return frozenset(found)


def checked(expression: str) -> str:
    """The same expression. Raises UnknownName unless each name in it is one that a scrape has."""
    if not metrics(expression):
        raise UnknownName(f"{expression!r}: reads no metric")
    return expression


def _called(expression: str, end: int, word: str) -> bool:
    rest = expression[end:].lstrip()
    if word in FUNCTIONS and re.match(r"\(|by\b|without\b", rest):
        return True
    if rest.startswith("("):
        raise UnknownName(f"{word}: not a function that is used here")
    return False
