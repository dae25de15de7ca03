"""Comma-separated lists and weights, as HTTP fields write them.

Rules of this file:

- Lists are split as RFC 9110 §5.6.1 says: empty members are ignored, a quoted string hides its commas.
- Linear in the length of the value, whatever the value: clients write these fields. Where even that is too
  much for what is meant, LONGEST says from where on a value is not looked into.
- Nothing here raises. A quoted string that never ends is not one: its quote is an ordinary character, so
  that it cannot hide the members behind it.
"""

from __future__ import annotations

import re

_WEIGHT = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z")
REMEMBERED = 256
"""Octets of a value whose meaning is worth remembering. What is longer is parsed each time, lest clients fill
the memory with values that never come again."""
LONGEST = 1024
"""Octets of what a client prefers or directs. No client means so much; splitting 64 KiB of it would keep the
worker from all others for a tenth of a second."""
LONGEST_TAGS = 8 * 1024
"""The same, of entity tags: a hundred and more."""
OWS = " \t"
QUOTE = '"'


def split_list(value: str, separator: str = ",") -> list[str]:
    """The members of a list, white space around them gone, empty ones left out."""
    parts = value.split(separator) if '"' not in value else _split_quoted(value, separator)
    return [member for part in parts if (member := part.strip(OWS))]


def _split_quoted(value: str, separator: str) -> list[str]:
    parts: list[str] = []
    start = position = 0
    quote_ends = True
    while position < len(value):
        char = value[position]
        if char == '"' and quote_ends:
            end = _end_of_quoted(value, position)
            # Once one quoted string is found to have no end, none behind it has one that counts:
            # without this, each quote would be searched to the end of the value.
            quote_ends = end > 0
            position = end if quote_ends else position + 1
            continue
        if char == separator:
            parts.append(value[start:position])
            start = position + 1
        position += 1
    parts.append(value[start:])
    return parts


def _end_of_quoted(value: str, start: int) -> int:
    """The position after the closing quote of the string that opens at ``start``; 0: it has none."""
    position = start + 1
    while position < len(value):
        char = value[position]
        if char == '"':
            return position + 1
        position += 2 if char == "\\" else 1
    return 0


def unquote(value: str) -> str:
    """What a quoted string says (RFC 9110 §5.6.4); a value that is none comes back as it is."""
    if len(value) < 2 or value[0] != '"' or _end_of_quoted(value, 0) != len(value):
        return value
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def weighted(value: str) -> list[tuple[str, float]]:
    """The members of an Accept-like list in order, each with its weight (RFC 9110 §12.4.2).

    In lower case, but for quoted strings. Parameters before the weight stay with the member, white space
    gone. A member whose weight cannot be read is left out: what was meant by it is not known.
    """
    result: list[tuple[str, float]] = []
    for member in split_list(value):
        words: list[str] = []
        weight: str | None = "1"
        for part in split_list(member, ";"):
            name, mark, text = (word.strip(OWS) for word in part.partition("="))
            name = name.lower()
            if name == "q" and mark:
                weight = text if _WEIGHT.match(text) else None
                break
            words.append(f"{name}{mark}{text if text.startswith(QUOTE) else text.lower()}")
        if weight is not None and words:
            result.append((";".join(words), float(weight)))
    return result
