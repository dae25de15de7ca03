"""Regular expressions from rule files: compiled only if they cannot take the loop hostage.

Rules of this file:

- A matcher that backtracks can take exponential time, and rules run on every request, on the event loop.
  So what can explode is refused when the file is loaded, conservatively: a repeat of something that
  itself repeats or chooses, backreferences, look-around, more than two open-ended repeats that can eat
  what follows them, too many optional parts.
- And what is matched is bounded: LONGEST characters. A longer path or value matches no expression.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

LONGEST = 2048
MAX_SOURCE = 512
MAX_GREEDY = 2
"""Open-ended repeats that can eat what follows them: each multiplies the time by the length."""
MAX_CHOICES = 1024
"""Ways through the optional parts, alternatives and bounded repeats, multiplied."""

_TOKEN = re.compile(
    r"""
      (?P<escape>\\.)
    | (?P<cls>\[\^?\]?(?:\\.|[^\]\\])*\])
    | (?P<open>\((?:\?:|\?P<[A-Za-z_]\w*>)?)
    | (?P<close>\))
    | (?P<repeat>(?:[*+?]|\{(?P<low>\d*)(?P<comma>,?)(?P<high>\d*)\})[?+]?)
    | (?P<bar>\|)
    | (?P<anchor>[\^$])
    | (?P<char>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SPECIAL = frozenset(".^$*+?{}[]\\|()")


def compile_regex(source: str) -> re.Pattern[str]:
    """ValueError says what is wrong with ``source``, or why it may take too long."""
    if not source:
        raise ValueError('expected a regular expression after "~"')
    if len(source) > MAX_SOURCE:
        raise ValueError(f"longer than {MAX_SOURCE} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # What Python will read otherwise one day ("[[") is refused now.
            pattern = re.compile(source)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    _check(source.removeprefix("(?i)"))
    return pattern


def literal_start(source: str) -> str:
    """The leading characters that every match begins with; "" when in doubt."""
    if "|" in source and _chooses(source):
        return ""
    text = source.removeprefix("^")
    end = 0
    while end < len(text):
        step = 2 if text[end] == "\\" else 1
        if step == 2 and (end + 1 >= len(text) or text[end + 1].isalnum()):
            break
        if step == 1 and text[end] in _SPECIAL:
            break
        if text[end + step : end + step + 1] in ("*", "?", "{"):
            break
        end += step
    return re.sub(r"\\(.)", r"\1", text[:end])


def _chooses(source: str) -> bool:
    """Whether there are alternatives outside of all groups: "/a|/b", but not "/(a|b)"."""
    depth = 0
    for token in _TOKEN.finditer(source):
        if token["bar"] and not depth:
            return True
        depth += bool(token["open"]) - bool(token["close"])
    return False


@dataclass(slots=True)
class _Group:
    repeats: bool = False
    choices: int = 1
    bars: int = 0


def _check(source: str) -> None:
    if re.search(r"\(\?(?!:|P<)", source):
        raise ValueError(
            "look-around, flags and conditions are not allowed; only (...), (?:...), (?P<name>...)"
        )
    if re.search(r"(?<!\\)(?:\\\\)*\\[1-9]", source):
        raise ValueError("backreferences are not allowed: they can take exponential time")
    tokens = list(_TOKEN.finditer(source))
    groups = [_Group()]
    closed = _Group()
    greedy = 0
    for place, token in enumerate(tokens):
        kind = token.lastgroup if token.lastgroup not in ("low", "comma", "high") else "repeat"
        if token["open"]:
            groups.append(_Group())
        elif kind == "bar":
            groups[-1].bars += 1
        elif kind == "close":
            closed = groups.pop()
            groups[-1].repeats |= closed.repeats
            groups[-1].choices *= closed.choices * (closed.bars + 1)
        elif token["repeat"]:
            inner = closed if tokens[place - 1]["close"] else _Group()
            greedy += _repeat(token, inner, groups[-1], tokens, place)
        if groups[-1].choices > MAX_CHOICES:
            raise ValueError("too many optional parts and alternatives: matching could take too long")
    if greedy > MAX_GREEDY:
        raise ValueError(
            f"{greedy} open-ended repeats that can eat what follows them; at most {MAX_GREEDY}, "
            'or narrow them ("[^/]+" in place of ".*")'
        )


def _repeat(
    token: re.Match[str], inner: _Group, outer: _Group, tokens: list[re.Match[str]], place: int
) -> int:
    """Count this repeat in; 1 if it is open-ended and can eat what follows it."""
    text = token["repeat"]
    if text.startswith("?"):
        outer.choices *= 2
        return 0
    if inner.repeats or inner.bars or inner.choices > 1:
        raise ValueError(
            "a repeat of something that itself repeats or chooses, such as (a+)+ or (a|b)*, "
            "can take exponential time"
        )
    outer.repeats = True
    if text.startswith("{"):
        low = int(token["low"] or 0)
        high = int(token["high"] or 0) if token["comma"] else low
        if high and high - low <= 64:
            outer.choices *= high - low + 1
            return 0
    return 0 if _tame(tokens, place) else 1


def _tame(tokens: list[re.Match[str]], place: int) -> bool:
    """Whether the repeat at ``place`` must stop where the next thing begins: "[^/]+/", "[0-9]+-", or the "
    "end."""
    rest = [t for t in tokens[place + 1 :] if not t["open"] and not t["close"] and not t["anchor"]]
    atom = tokens[place - 1]
    if atom["close"]:
        return False
    if not rest:
        return True
    following = rest[0]["char"] or (rest[0]["escape"] or "")[1:]
    if rest[0]["char"] == "." or not following or (rest[0]["escape"] and following.isalnum()):
        return False
    after = rest[1]["repeat"] if len(rest) > 1 else None
    if after and (after[0] in "*?" or after.startswith(("{0", "{,"))):
        return False
    try:
        return re.fullmatch(atom[0], following) is None
    except re.error:
        return False


def matches(pattern: re.Pattern[str], text: str) -> bool:
    return len(text) <= LONGEST and pattern.fullmatch(text) is not None
