"""What may stand beneath a key: small readers that check a node and describe themselves.

Rules of this file:

- A Kind reads a node into a plain value and reports what was expected where it cannot; it also gives
  its JSON Schema and its words for the reference, so that the three can never disagree.
- ``read`` returns WRONG after reporting; the reader of a table leaves such keys out.
- No Kind knows a rule's meaning: what keys mean together is checked in build.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from edgeproxy.rules.document import Mapping, Node, Scalar, Sequence, describe
from edgeproxy.rules.problems import Problems, did_you_mean, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

Schema = dict[str, Any]


class Wrong:
    """The value of what could not be read (and was reported)."""


WRONG = Wrong()


class Kind(Protocol):
    @property
    def says(self) -> str:
        """In the reference, and after "expected"."""

    def read(self, node: Node, key: str, out: Problems) -> Any: ...

    def schema(self) -> Schema: ...


@dataclass(frozen=True)
class Word:
    """A scalar. ``convert`` raises ValueError with what completes ``opening``."""

    says: str
    convert: Callable[[str], Any]
    json: Schema
    opening: str = "expected "

    def read(self, node: Node, key: str, out: Problems) -> Any:
        if not isinstance(node, Scalar) or node.empty:
            out.add(node, key, f"expected {self.says}, got {describe(node)}")
            return WRONG
        try:
            return self.convert(node.text)
        except ValueError as error:
            out.add(node, key, f"{self.opening}{error}")
            return WRONG

    def schema(self) -> Schema:
        return dict(self.json)


@dataclass(frozen=True)
class Many:
    """A list of ``of``, or one of it by itself. Gives a tuple."""

    of: Kind
    lone: bool = True
    least: int = 1

    @property
    def says(self) -> str:
        return f"{self.of.says}, or a list of them" if self.lone else f"a list; each item {self.of.says}"

    def read(self, node: Node, key: str, out: Problems) -> Any:
        if isinstance(node, Sequence):
            if len(node.items) < self.least:
                out.add(node, key, f"expected {self.says}, got an empty list")
                return WRONG
            read = [self.of.read(item, f"{key}[{i}]", out) for i, item in enumerate(node.items)]
            return WRONG if WRONG in read else tuple(read)
        if not self.lone:
            out.add(node, key, f"expected {self.says}, got {describe(node)}")
            return WRONG
        one = self.of.read(node, key, out)
        return WRONG if one is WRONG else (one,)

    def schema(self) -> Schema:
        each = self.of.schema()
        listed: Schema = {"type": "array", "items": each}
        if self.least:
            listed["minItems"] = self.least
        return {"anyOf": [each, listed]} if self.lone else listed


@dataclass(frozen=True)
class Pairs:
    """A mapping from words of one kind to values of another. Gives a tuple of pairs, in order."""

    name: Word
    value: Kind
    says: str
    fold: bool = False
    """Names that differ in case only are one name."""

    def read(self, node: Node, key: str, out: Problems) -> Any:
        if not isinstance(node, Mapping):
            out.add(node, key, f"expected {self.says}, got {describe(node)}")
            return WRONG
        pairs: list[tuple[Any, Any]] = []
        seen: set[Any] = set()
        for name, value in node.pairs:
            inner = f"{key}.{name.text}"
            read_name = self.name.read(name, inner, out)
            read_value = self.value.read(value, inner, out)
            if WRONG in (read_name, read_value):
                pairs.append((WRONG, WRONG))
                continue
            same = read_name.lower() if self.fold else read_name
            if same in seen:
                out.add(name, inner, "given twice, in another writing")
            seen.add(same)
            pairs.append((read_name, read_value))
        return WRONG if (WRONG, WRONG) in pairs else tuple(pairs)

    def schema(self) -> Schema:
        made: Schema = {"type": "object", "additionalProperties": self.value.schema()}
        if "pattern" in self.name.json:
            made["propertyNames"] = {"pattern": self.name.json["pattern"]}
        return made


@dataclass(frozen=True)
class Key:
    """One row of a table of keys: what the reader, the schema and the reference are made from."""

    name: str
    kind: Kind
    doc: str
    default: str = ""
    example: str = ""
    required: bool = False


@dataclass(frozen=True)
class Table:
    """A mapping with known keys. Gives a dict that holds the keys that were given and could be read.

    ``hints``: keys people bring along from elsewhere -> what to write here.
    """

    keys: tuple[Key, ...]
    says: str = "a mapping"
    hints: tuple[tuple[str, str], ...] = ()

    @cached_property
    def _known(self) -> dict[str, Key]:
        return {k.name: k for k in self.keys}

    @cached_property
    def _required(self) -> list[Key]:
        return [k for k in self.keys if k.required]

    def read(self, node: Node, key: str, out: Problems) -> Any:
        if not isinstance(node, Mapping):
            out.add(node, key, f"expected {self.says}, got {describe(node)}")
            return WRONG
        values: dict[str, Any] = {}
        for name, value in node.pairs:
            row = self._known.get(name.text)
            inner = f"{key}.{name.text}" if key else name.text
            if row is None:
                out.add(name, inner, self._unknown(name.text))
                continue
            read = row.kind.read(value, inner, out)
            if read is not WRONG:
                values[name.text] = read
        for row in self._required:
            if node.get(row.name) is None:
                out.add(node, key, f"expected the key {quoted(row.name)} ({row.kind.says})")
        return values

    def _unknown(self, word: str) -> str:
        hint = dict(self.hints).get(word.lower().replace("-", "_"))
        if hint is not None:
            return f"unknown key {quoted(word)}; {hint}"
        near = did_you_mean(word, [k.name for k in self.keys])
        return f"unknown key {quoted(word)}" + (near or "; known are " + ", ".join(k.name for k in self.keys))

    def schema(self) -> Schema:
        made: Schema = {
            "type": "object",
            "additionalProperties": False,
            "properties": {k.name: {**k.kind.schema(), "description": k.doc} for k in self.keys},
        }
        required = [k.name for k in self.keys if k.required]
        if required:
            made["required"] = required
        return made


@dataclass(frozen=True)
class Either:
    """One kind for a word, another for a mapping."""

    word: Kind
    mapping: Kind

    @property
    def says(self) -> str:
        return f"{self.word.says}; or {self.mapping.says}"

    def read(self, node: Node, key: str, out: Problems) -> Any:
        if isinstance(node, Mapping):
            return self.mapping.read(node, key, out)
        if isinstance(node, Sequence):
            out.add(node, key, f"expected {self.says}, got {describe(node)}")
            return WRONG
        return self.word.read(node, key, out)

    def schema(self) -> Schema:
        return {"anyOf": [self.word.schema(), self.mapping.schema()]}
