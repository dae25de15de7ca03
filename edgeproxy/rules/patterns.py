"""Path patterns -> PathPattern: what the stars and braces mean.

Rules of this file:

- ``/api/pitches`` is that path and no other; ``{id}`` is one segment, not empty, and named; ``*`` is any
  run of characters within a segment (a whole segment is not empty); ``**`` is any number of segments,
  none among them, so ``/api/pitches/**`` is also ``/api/pitches``; a pattern without "/" is about the last
  segment (``*.css``); ``~`` opens a regular expression for the whole path.
- A pattern is about the path as it came over the wire: nothing is decoded, case matters.
- What is made of a glob matches in time proportional to the path: wherever a star is followed by more,
  the leftmost fit is taken and kept (an atomic group), which for globs never loses a match.
- Regular expressions are checked in safe_regex.py.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from edgeproxy.rules.model import PathPattern
from edgeproxy.rules.problems import quoted
from edgeproxy.rules.safe_regex import compile_regex, literal_start

_NAMED = re.compile(r"\{([^{}]*)\}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COLON = re.compile(r"/:([A-Za-z_][A-Za-z0-9_]*)(?=/|\Z)")
_WILD = re.compile(r"[*{}]")
_WIRE = re.compile(r"[!-~]*")
_DEEPER = r"(?:/[^/]*)*"
MAX_PATTERN = 1024


def path_pattern(source: str) -> PathPattern:
    """ValueError says what is wrong with ``source``."""
    if len(source) > MAX_PATTERN:
        raise ValueError(f"longer than {MAX_PATTERN} characters")
    if source.startswith("~"):
        compile_regex(source[1:])
        return PathPattern(source, source[1:], literal_start(source[1:]))
    _check_habits(source)
    _check_wire(source)
    if "/" not in source:
        return _last_segment(source)
    if not source.startswith("/"):
        raise ValueError(
            'expected "/" at the beginning (a pattern without any "/" is about the last segment)'
        )
    names: list[str] = []
    chunks = _chunks(source)
    regex_text = _segments(chunks[0], names)
    for chunk in chunks[1:-1]:
        regex_text += rf"(?>{_DEEPER}?{_segments(chunk, names)}(?=/|\Z))"
    if len(chunks) > 1:
        regex_text += _DEEPER + _segments(chunks[-1], names) if chunks[-1] else "(?:/.*)?"
    exact = _WILD.search(source) is None
    literal = _literal(source)
    return PathPattern(source, regex_text, literal, exact, deep=source == f"{literal}/**")


def _check_habits(source: str) -> None:
    """What is written so elsewhere and could mean nothing here."""
    if source.startswith("^"):
        regex = "~" + source[1:].removesuffix("$")
        raise ValueError(f'a regular expression begins with "~": write {quoted(regex)}')
    if _COLON.search(source):
        braces = _COLON.sub(r"/{\1}", source)
        raise ValueError(f"a segment is named in braces: write {quoted(braces)}")


def _check_wire(source: str) -> None:
    if not source:
        raise ValueError('expected a path pattern such as "/api/pitches/**", got nothing')
    if "?" in source or "#" in source:
        raise ValueError(
            "a path pattern has no query and no fragment; conditions on the query go under match.query"
        )
    if not _WIRE.fullmatch(source):
        wire = quote(source, safe="/*{}~!$&'()+,;=:@%-._")
        raise ValueError(f'paths are compared as they come over the wire; write "{wire}"')


def _chunks(source: str) -> list[list[str]]:
    """The segments between the ``**``: "/a/**/b/*" -> [["a"], ["b", "*"]]."""
    chunks: list[list[str]] = [[]]
    before = ""
    for segment in source[1:].split("/"):
        if segment == "**":
            if before == "**":
                raise ValueError('"**" twice in a row; one is enough')
            chunks.append([])
        elif "**" in segment:
            raise ValueError(f'"**" must be a whole segment: write "**/{segment.replace("**", "*")}"')
        else:
            chunks[-1].append(segment)
        before = segment
    return chunks


def _segments(segments: list[str], names: list[str]) -> str:
    return "".join("/" + _segment(s, names) for s in segments)


def _segment(segment: str, names: list[str]) -> str:
    if _WILD.search(segment) is None:
        return re.escape(segment)
    if segment == "*":
        return "[^/]+"
    found = _NAMED.search(segment)
    if found is None:
        if "{" in segment or "}" in segment:
            raise ValueError('a brace stands alone; expected "{name}"')
        return _stars(segment)
    before, after = segment[: found.start()], segment[found.end() :]
    if _WILD.search(before + after):
        raise ValueError('one "{name}" and no "*" in a segment; for more write a regular expression ("~...")')
    name = found[1]
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f'"{{{name}}}" is no name; expected letters, digits and "_", such as "{{id}}"')
    if name in names:
        raise ValueError(f'"{{{name}}}" is named twice')
    names.append(name)
    return f"{re.escape(before)}(?P<{name}>[^/]+){re.escape(after)}"


def _stars(segment: str) -> str:
    """``a*b*c``: the middle pieces are taken at their leftmost fit, the last one ends the segment."""
    first, *rest = segment.split("*")
    if not rest:
        return re.escape(first)
    middle = "".join(rf"(?>[^/]*?{re.escape(piece)})" for piece in rest[:-1])
    return f"{re.escape(first)}{middle}[^/]*{re.escape(rest[-1])}"


def _last_segment(source: str) -> PathPattern:
    if source == "**":
        return PathPattern(source, ".*", "")
    if "**" in source:
        raise ValueError('"**" must be a whole segment')
    inner = "[^/]*" if source == "*" else _segment(source, [])
    return PathPattern(source, f".*/{inner}", "")


def _literal(source: str) -> str:
    """The leading part that is the same in every path that matches."""
    wild = _WILD.search(source)
    if wild is None:
        return source
    literal = source[: wild.start()]
    # "/a/**" also matches "/a".
    return literal[:-1] if source.startswith("**", wild.start()) else literal


def whole_segments(pattern: PathPattern) -> str:
    """The leading segments that every matching path has in full, without the last "/": the index key.

    "/api/pitches/{id}" and "/api/pitches/**" -> "/api/pitches"; "/a-*" and "*.css" -> "".
    """
    source = pattern.source
    if pattern.exact:
        return source
    if source.startswith("/") and source[len(pattern.literal) :].startswith("/**"):
        return pattern.literal
    return pattern.literal.rpartition("/")[0]


def extension(pattern: PathPattern) -> str | None:
    """``css`` for a pattern whose matches all end in ".css" whatever their path, for the index; else None."""
    source = pattern.source
    if "/" in source or source.startswith("~"):
        return None
    tail = source.rpartition(".")[2]
    return tail if "." in source and not _WILD.search(tail) else None


def names_in(pattern: PathPattern) -> frozenset[str]:
    if pattern.source.startswith("~"):
        return frozenset(pattern.regex.groupindex)
    return frozenset(_NAMED.findall(pattern.source))
