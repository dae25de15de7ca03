"""What kind of operation a GraphQL request asks for, told by its tokens.

Rules of this file:

- No parser: a document is cut into tokens (October 2021 edition, §2.1), and of its definitions only the shape
  is looked at. Whatever is not surely an executable document is None, and None is never taken for a query.
- Two documents have the same tokens only if they are the same document: what is left out is what the
  specification has ignored (§2.1.7: white space, commas, comments), strings stay octet by octet.
- Linear in the length of the document: no expression gives back what it has matched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_IGNORED = r"(?:[\ufeff\t \n\r,]++|\#[^\n\r]*+)*+"
_TOKENS = r"""
    [_A-Za-z][_0-9A-Za-z]*+
  | -?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+(?![_0-9A-Za-z.])
  | \"{3}(?>\\\"{3}|(?!\"{3})[\s\S])*+\"{3}
  | "(?!"")(?:[^"\\\n\r]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]+\}))*+"
  | \.\.\.
  | [!$&():=@\[\]{|}]
"""
_LEADING = re.compile(_IGNORED)
_TOKEN = re.compile(f"({_TOKENS}){_IGNORED}", re.VERBOSE)
_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")
_CLOSES = {"(": ")", "[": "]", "{": "}"}
_OPERATIONS = frozenset({"query", "mutation", "subscription"})
REMEMBERED = 8192
"""Characters of a document that is worth remembering: clients send the same few again and again."""


@dataclass(frozen=True, slots=True)
class Document:
    """``text``: its tokens, a space between two. ``operations``: (kind, name) of each, in order; the name is
    "" where there is none."""

    text: str
    operations: tuple[tuple[str, str], ...]

    def kind(self, name: str) -> str | None:
        """The kind ("query", "mutation" or "subscription") of the operation that ``name`` ("": none) selects;
        None where it selects no single one (§6.1)."""
        found = [kind for kind, called in self.operations if not name or called == name]
        return found[0] if len(found) == 1 else None


def document(source: str) -> Document | None:
    """None where it is not surely an executable document."""
    return _remembered(source) if len(source) <= REMEMBERED else _document(source)


def _document(source: str) -> Document | None:
    tokens = _tokens(source)
    if tokens is None:
        return None
    operations = _operations(tokens)
    return Document(" ".join(tokens), operations) if operations else None


_remembered = lru_cache(maxsize=512)(_document)


def _tokens(source: str) -> list[str] | None:
    found = _LEADING.match(source)
    place = found.end() if found else 0
    tokens: list[str] = []
    while place < len(source):
        found = _TOKEN.match(source, place)
        if found is None:
            return None
        tokens.append(found[1])
        place = found.end()
    return tokens


def _operations(tokens: list[str]) -> tuple[tuple[str, str], ...]:
    """() where some definition is neither an operation nor a fragment, or not well-formed on the outside."""
    operations: list[tuple[str, str]] = []
    place = 0
    while place < len(tokens):
        word = tokens[place]
        start, name = place, ""
        if word in _OPERATIONS:
            place += 1
            if place < len(tokens) and _NAME.fullmatch(tokens[place]):
                name = tokens[place]
                place += 1
            if tokens[place : place + 1] == ["("]:
                place = _after(tokens, place)
        elif word == "fragment":
            named = tokens[place + 1 : place + 4]
            if len(named) < 3 or named[1] != "on" or not (_NAME.fullmatch(named[0]) and named[0] != "on"):
                return ()
            if not _NAME.fullmatch(named[2]):
                return ()
            place += 4
        elif word != "{":
            return ()
        if place > start:
            place = _after_directives(tokens, place)
        if tokens[place : place + 1] != ["{"]:
            return ()
        place = _after(tokens, place)
        if word != "fragment":
            operations.append((word if word in _OPERATIONS else "query", name))
    return tuple(operations) if place == len(tokens) else ()


def _after_directives(tokens: list[str], place: int) -> int:
    while tokens[place : place + 1] == ["@"]:
        place += 2  # and its name; where that is none, no "{" will follow as it has to
        if tokens[place : place + 1] == ["("]:
            place = _after(tokens, place)
    return place


def _after(tokens: list[str], place: int) -> int:
    """The place after the bracket that closes the one at ``place``; beyond the end where none does."""
    open_: list[str] = []
    for at in range(place, len(tokens)):
        token = tokens[at]
        if token in _CLOSES:
            open_.append(_CLOSES[token])
        elif token in (")", "]", "}"):
            if open_.pop() != token:
                break
            if not open_:
                return at + 1
    return len(tokens) + 1
