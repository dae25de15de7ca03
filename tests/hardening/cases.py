r"""Cases of framing as data: what a file under ``cases/`` can say, and the octets that come of it.

Rules of this file:

- A case is one thing to be true of each of its ``each`` (one, where there is none). Text is Latin-1: "\xff"
  is one octet; ``{each}`` stands for the item, ``{20000}`` for so many letters, ``{lines}`` for 200 fields.
- A request is ``send``, or ``line``, ``hosts``, ``fields`` and ``body`` put together. An answer is ``send``.
- What may become of a request is one of: ``expect``, the status that it is refused with (the connection ends,
  nothing behind it is executed, the origin has seen nothing, or with ``asks: begun`` no whole request);
  ``asked``, the one request that the origin sees, in one meaning. ``either``: that one or a 400.
- ``but`` says for items of ``each`` what ``asked`` is for them instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.yaml_cases import read_cases

FILES = Path(__file__).parent / "cases"
LONG = "a" * 20_000
LINES = "\r\n".join(["X: y"] * 200)
STORABLE = b"\r\nCache-Control: max-age=60, stale-if-error=600"
FILLED = {
    "{20000}": LONG,
    "{70000}": "a" * 70_000,
    "{lines}": LINES,
    "{600 fields}": "\r\n".join(["X: y"] * 600),
}


def octets(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


@dataclass(frozen=True)
class Asked:
    """The one request that the origin may see. None: of no matter here."""

    method: str | None = None
    target: str | None = None
    hosts: tuple[str, ...] | None = None
    body: str | None = None
    framing: str = ""
    """The one field line that frames it; "" for whatever does."""
    has: dict[str, str] = field(default_factory=dict)
    hasnt: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequestCase:
    name: str
    item: str
    sends: bytes
    statuses: frozenset[int]
    """Of a refusal; empty where it is not to be refused."""
    asked: Asked | None
    begun: bool
    closes: bool | str
    """Whether its answer is the connection's last. "maybe": of no matter. "behind": it is where another
    request came in the same segment, since what stands behind chunks is not believed."""
    alone: bool
    """Nothing is sent behind it: what the parser makes of octets behind a last request is no matter here."""

    def __str__(self) -> str:
        return f"{self.name}: {self.item!r}"


def _filled(value: Any, item: str) -> Any:
    if isinstance(value, str):
        filled = value.replace("{each}", item)
        for mark, text in FILLED.items():
            filled = filled.replace(mark, text)
        return filled
    if isinstance(value, dict):
        return {_filled(name, item): _filled(of, item) for name, of in value.items()}
    if isinstance(value, list):
        return [_filled(one, item) for one in value]
    return value


def _asked(said: dict[str, Any]) -> Asked:
    given = dict(said)
    if "hosts" in given:
        given["hosts"] = tuple(given["hosts"])
    return Asked(**given)


def _sends(case: dict[str, Any]) -> str:
    if "send" in case:
        return str(case["send"])
    line = case.get("line", "POST /case HTTP/1.1")
    lines = [line, case.get("hosts", "Host: a"), case.get("fields", "")]
    return "\r\n".join(part for part in lines if part) + "\r\n\r\n" + str(case.get("body", ""))


@dataclass(frozen=True)
class AnswerCase:
    name: str
    item: str
    sends: bytes
    fin: bool
    refused: bool
    """The client gets 502 instead."""
    gets: bytes | None
    cut: bool
    reused: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.item[:40]!r}"


def _storable(sends: bytes) -> bytes:
    place = sends.find(b"\r\n", max(0, sends.find(b"HTTP/1.1 200")))
    return sends if place < 0 else sends[:place] + STORABLE + sends[place:]


def answers() -> dict[str, list[AnswerCase]]:
    """Name of a case -> one for each of its items."""
    made: dict[str, list[AnswerCase]] = {}
    for case in load("answers"):
        for item, filled in items(case):
            gets = filled.get("gets")
            made.setdefault(filled["id"], []).append(
                AnswerCase(
                    name=filled["id"],
                    item=item,
                    sends=_storable(octets(filled["send"])),
                    fin=filled.get("fin", False),
                    refused="expect" in filled or filled.get("either", False),
                    gets=None if gets is None else octets(gets),
                    cut=filled.get("cut", False),
                    reused=filled.get("reused", False),
                )
            )
    return made


def load(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_cases(FILES / f"{name}.yaml")
    return found


def items(case: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each item of ``each`` with the case that it makes."""
    return [(str(item), _filled(case, str(item))) for item in case.get("each", [""])]


def requests() -> dict[str, list[RequestCase]]:
    """Name of a case -> one for each of its items."""
    made: dict[str, list[RequestCase]] = {}
    for case in load("requests"):
        for item, filled in items(case):
            said = case.get("but", {}).get(item, filled.get("asked"))
            status = filled.get("expect", []) if item not in case.get("but", {}) else []
            statuses = frozenset(status if isinstance(status, list) else [status])
            closes = filled.get("closes", False)
            made.setdefault(filled["id"], []).append(
                RequestCase(
                    name=filled["id"],
                    item=item,
                    sends=octets(_sends(filled)),
                    statuses=statuses | ({400} if filled.get("either") else frozenset()),
                    asked=None if said is None else _asked(said),
                    begun=filled.get("asks") == "begun",
                    closes=closes,
                    alone=filled.get("alone", False),
                )
            )
    return made
