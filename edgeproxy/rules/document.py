"""YAML text -> nodes that know their line: the small, harmless part of YAML that rule files need.

Rules of this file:

- Works on the parser's events and builds its own nodes, so nothing is constructed and nothing resolved:
  ``on``, ``no`` and ``404`` stay the text they are, and the key table says what they mean.
- Refused with a line: anchors, aliases and merge keys (a few lines of them can mean gigabytes), explicit
  tags, several documents, keys that are no plain words, a key given twice, deep nesting.
- Bounded before it is parsed: the caller has cut the text at MAX_BYTES.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from itertools import islice
from typing import TYPE_CHECKING

import yaml

from edgeproxy.rules.problems import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeproxy.rules.problems import Problems

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 12

# libyaml is ten times as fast; without it the file limit still bounds the time.
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# Nobody changes a node; they are not frozen because there are many, and frozen ones take three times as long.
@dataclass(slots=True)
class Scalar:
    text: str
    line: int
    column: int
    quoted: bool = False

    @property
    def empty(self) -> bool:
        return not self.quoted and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(slots=True)
class Sequence:
    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(slots=True)
class Mapping:
    pairs: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int

    def get(self, key: str) -> Node | None:
        return next((value for name, value in self.pairs if name.text == key), None)


Node = Scalar | Sequence | Mapping


def at(node: Node | None, *steps: str | int, default: Node) -> Node:
    """The node under ``steps`` (keys and indexes), or the nearest one that exists."""
    for step in steps:
        inner: Node | None = None
        if isinstance(node, Mapping) and isinstance(step, str):
            inner = node.get(step)
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            inner = node.items[step]
        if inner is None:
            break
        node = inner
    return default if node is None else node


def describe(node: Node) -> str:
    """What stands there, for "got ..."."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    return "nothing" if node.empty else quoted(node.text)


def merged(below: Mapping, above: Mapping) -> Mapping:
    """``above`` with the keys of ``below`` that it lacks; where both hold a mapping, these are merged."""
    pairs: list[tuple[Scalar, Node]] = []
    for key, value in above.pairs:
        base = below.get(key.text)
        both = isinstance(base, Mapping) and isinstance(value, Mapping)
        pairs.append((key, merged(base, value) if both else value))  # type: ignore[arg-type]
    names = {key.text for key, _ in above.pairs}
    pairs.extend((key, value) for key, value in below.pairs if key.text not in names)
    return Mapping(tuple(pairs), above.line, above.column)


class _RefusedError(Exception):
    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


def parse(text: str, out: Problems) -> Node | None:
    """The document's root, None if it is empty or cannot be read (and then ``out`` says why)."""
    try:
        return _document(yaml.parse(text, Loader=_LOADER), out)
    except _RefusedError as refused:
        out.add(refused, "", str(refused))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = None if mark is None else Scalar("", mark.line + 1, mark.column + 1)
        out.add(place, "", f"not YAML: {error.problem or error.context}{_hint(error, text)}")
    except yaml.YAMLError as error:
        out.add(None, "", f"not YAML: {str(error).splitlines()[0]}")
    return None


_IN_ONE_COLUMN = "; check the indentation: the keys of one mapping begin in one column"
_HINTS = (
    ("alias", '; put patterns that begin with "*" in quotes'),
    (
        "mapping values are not allowed",
        f'{_IN_ONE_COLUMN} (and a text that holds ": " goes in quotes)',
    ),
    ("while parsing a block", _IN_ONE_COLUMN),
)
"""What the parser says -> what most often is meant."""


def _hint(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    if mark is not None:
        line = next(islice(StringIO(text), mark.line, None), "")
        if "\t" in line[: len(line) - len(line.lstrip())] or line[mark.column :].startswith("\t"):
            return "; there is a tab: use spaces"
    said = str(error)
    return next((hint for word, hint in _HINTS if word in said), "")


def _document(events: Iterator[yaml.Event], out: Problems) -> Node | None:
    root: Node | None = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refused(event, "expected one document; a second one (---) begins here")
        elif isinstance(event, yaml.NodeEvent):
            root = _node(event, events, out, 1)
    return None if isinstance(root, Scalar) and root.empty else root


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (0, 0) if mark is None else (mark.line + 1, mark.column + 1)


def _refused(event: yaml.Event, message: str) -> _RefusedError:
    line, column = _place(event)
    return _RefusedError(line, column, message)


def _node(event: yaml.Event, events: Iterator[yaml.Event], out: Problems, depth: int) -> Node:
    mark = event.start_mark
    line, column = (0, 0) if mark is None else (mark.line + 1, mark.column + 1)
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise _refused(
            event,
            "anchors and aliases (& and *) are not allowed: use the defaults block, "
            'and put patterns that begin with "*" in quotes',
        )
    if getattr(event, "tag", None):
        raise _refused(event, "explicit tags (!) are not allowed")
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(event.value, line, column, quoted=event.style not in (None, ""))
    if depth >= MAX_DEPTH:
        raise _refused(event, f"nested more than {MAX_DEPTH} deep")
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Node] = []
        while not isinstance(inner := next(events), yaml.SequenceEndEvent):
            items.append(_node(inner, events, out, depth + 1))
        return Sequence(tuple(items), line, column)
    pairs: dict[str, tuple[Scalar, Node]] = {}
    while not isinstance(inner := next(events), yaml.MappingEndEvent):
        key = _node(inner, events, out, depth + 1)
        value = _node(next(events), events, out, depth + 1)
        if not isinstance(key, Scalar):
            raise _refused(inner, "expected a plain word as key")
        first = pairs.setdefault(key.text, (key, value))[0]
        if first is not key:
            out.add(key, key.text, f"given twice; it stands in line {first.line} already")
    return Mapping(tuple(pairs.values()), line, column)
