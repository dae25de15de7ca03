"""The words of rule files: durations, sizes, names and values of fields, methods, hosts.

Rules of this file: each function takes the text as written and gives the value, or raises ValueError with
what is wrong in words that complete "expected ..., got ...". Nothing here knows a file or a line.
"""

from __future__ import annotations

import re

from edgeproxy.networks import Network, networks_in
from edgeproxy.rules.model import SAFE_METHODS
from edgeproxy.rules.problems import did_you_mean, quoted

MAX_SECONDS = 2**31  # RFC 9111 §1.2.2: the largest delta-seconds that everybody can hold.
MAX_SIZE = 2**40

_SECONDS = {
    "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0,
}  # fmt: skip
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdwy]))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdwy])", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_UNITS = {
    "": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3,
    "kib": 1024, "mib": 1024**2, "gib": 1024**3, "k": 1024, "m": 1024**2, "g": 1024**3,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_VALUE = re.compile(r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?|")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_DIRECTIVES = re.compile(r"""[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|"[^"\\]*"))?""")

FRAMING = frozenset({
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "content-length", "host", "proxy-authenticate", "proxy-authorization",
})  # fmt: skip
"""Fields that belong to one connection or say how long a message is: not a rule's to change."""


METHODS = frozenset({
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD",
    "LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE",
    "MOVE", "OPTIONS", "ORDERPATCH", "PATCH", "POST", "PRI", "PROPFIND", "PROPPATCH", "PUT", "QUERY",
    "REBIND", "REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE",
    "UPDATEREDIRECTREF", "VERSION-CONTROL",
})  # fmt: skip
"""The registered ones: https://www.iana.org/assignments/http-methods"""


def duration(text: str) -> float:
    """Seconds: "30s", "15m", "1h30m", "7d", "250ms", or plain seconds."""
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    else:
        raise ValueError(f"a duration such as 30s, 15m, 1h30m, 7d or plain seconds, got {quoted(text)}")
    if seconds > MAX_SECONDS:
        raise ValueError(f"a duration of at most {MAX_SECONDS} seconds (68 years), got {quoted(text)}")
    return seconds


def show_duration(seconds: float) -> str:
    """The shortest writing: 900 -> "15m", 5400 -> "1h30m", 0.25 -> "250ms"."""
    if seconds <= 0:
        return "0"
    if seconds != int(seconds):
        return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"
    left, parts = int(seconds), []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def size(text: str) -> int:
    """Octets: "1MiB", "512KB", "8m" (as nginx: 1024), or a plain number."""
    found = _SIZE.fullmatch(text)
    unit = None if found is None else _UNITS.get(found[2].lower())
    if found is None or unit is None:
        raise ValueError(f"a size such as 1MiB, 512KB or a number of octets, got {quoted(text)}")
    octets = int(float(found[1]) * unit)
    if octets > MAX_SIZE:
        raise ValueError(f"a size of at most 1024GiB, got {quoted(text)}")
    return octets


def count(text: str) -> int:
    """A whole number, 0 to 999,999,999."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"a whole number such as 500, got {quoted(text)}")
    return int(text)


_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/([smh]))?", re.ASCII)
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", re.ASCII)


def last_part(text: str) -> tuple[float, bool]:
    """The end of a lifetime: (0.1, True) for "10%", (30.0, False) for "30s"."""
    found = _SHARE.fullmatch(text)
    if found is None:
        try:
            seconds = duration(text)
        except ValueError:
            seconds = 0.0
        if seconds > 0:
            return seconds, False
    elif 0 < float(found[1]) <= 50:
        return float(found[1]) / 100, True
    raise ValueError(f"a share of up to 50%, such as 10%, or a duration such as 30s, got {quoted(text)}")


def share(text: str) -> float:
    """0.1 for "10%"."""
    found = _SHARE.fullmatch(text)
    if found is None or not 0 <= float(found[1]) <= 50:
        raise ValueError(f"a share of up to 50%, such as 10%, got {quoted(text)}")
    return float(found[1]) / 100


def rate(text: str) -> float:
    """Per second: "5/s", "30/m", "100/h"; a plain number is per second."""
    found = _RATE.fullmatch(text)
    if found is None or float(found[1]) > 1e6:
        raise ValueError(f"a rate such as 1/s or 30/m, got {quoted(text)}")
    return float(found[1]) / {None: 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def some_rate(text: str) -> float:
    """As ``rate``, more than nothing."""
    if not rate(text):
        raise ValueError(f"a rate above 0, such as 10/s, got {quoted(text)}")
    return rate(text)


def number(text: str) -> float:
    """A number, 0 or more."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"a number such as 0.5, got {quoted(text)}")
    return float(text)


def time_of_day(text: str) -> int:
    """Seconds after midnight: "05:00"."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f'a time of day (UTC) such as "05:00", got {quoted(text)}')
    return int(found[1]) * 3600 + int(found[2]) * 60


def interval(text: str) -> float:
    """A duration of ten seconds or more."""
    if duration(text) < 10:
        raise ValueError(f"a duration of 10s or more, got {quoted(text)}")
    return duration(text)


def whole_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(?:[/?][!\"$-~]*)?", text, re.ASCII):
        raise ValueError(
            f"a URL as clients use it, such as http://api.example/sitemap.xml, got {quoted(text)}"
        )
    return text


def list_file(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"the path of a file, from the root, got {quoted(text)}")
    return text


def some(most: int, text: str) -> int:
    """A whole number from 1 to ``most``."""
    if not 1 <= count(text) <= most:
        raise ValueError(f"a whole number from 1 to {most}, got {quoted(text)}")
    return count(text)


def network(text: str) -> Network:
    """One network; an address is one of its own."""
    try:
        found = networks_in(text)
    except ValueError:
        found = ()
    if len(found) != 1:
        raise ValueError(f"a network such as 10.0.0.0/8 or 2001:db8::/32, got {quoted(text)}")
    return found[0]


def counted_by(text: str) -> str:
    """``client``, ``all`` or ``header:name``, in lower case."""
    kind, mark, name = text.partition(":")
    if text in ("client", "all") or (kind == "header" and mark and _TOKEN.fullmatch(name)):
        return text.lower()
    raise ValueError(f"client, all or header:NAME, got {quoted(text)}")


def flag(text: str) -> bool:
    word = text.lower()
    if word in ("true", "on", "yes"):
        return True
    if word in ("false", "off", "no"):
        return False
    raise ValueError(f"true or false, got {quoted(text)}")


def rule_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(
            f'a name of up to 64 letters, digits, ".", "_" and "-", got {quoted(text)} '
            "(it is a label in metrics and logs)"
        )
    if text == "none":
        raise ValueError('another name: "none" means that no rule matched')
    return text


def field_name(text: str) -> str:
    """Lower case."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"a header name, got {quoted(text)}")
    return text.lower()


def changeable_field(text: str) -> str:
    """A field a rule may set, add or remove, as written."""
    if field_name(text) in FRAMING:
        raise ValueError(f"another header: {text} belongs to the connection and is written by the proxy")
    return text


def field_value(text: str) -> str:
    if not _VALUE.fullmatch(text):
        raise ValueError(f"a header value (no line breaks, Latin-1), got {quoted(text)}")
    return text


def cache_control(text: str) -> str:
    """A Cache-Control value as clients will get it; checked for shape only."""
    parts = [part.strip() for part in text.split(",")]
    if not all(_DIRECTIVES.fullmatch(part) for part in parts):
        raise ValueError(f'directives such as "public, max-age=60", got {quoted(text)}')
    for part in parts:
        name, _, value = part.partition("=")
        timed = name.lower() in ("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error")
        if timed and not re.fullmatch("[0-9]+", value):
            raise ValueError(f"{name}= with whole seconds (no units here), got {quoted(part)}")
    return text


def method(text: str) -> str:
    """Upper case."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"a method such as GET, got {quoted(text)}")
    return text.upper()


def body_method(text: str) -> str:
    """Upper case."""
    name = method(text)
    if name not in ("QUERY", "POST"):
        raise ValueError(f"QUERY or POST, got {quoted(text)}")
    return name


def unsafe_method(text: str) -> str:
    name = method(text)
    if name in SAFE_METHODS:
        raise ValueError(f"a method that changes something, such as POST, got {quoted(text)}")
    return name


def host(text: str) -> str:
    """Lower case, "*.example" for any name beneath it, no port."""
    name = text.lower()
    if not _HOST.fullmatch(name):
        raise ValueError(f"a host such as api.example or *.example, without a port, got {quoted(text)}")
    return name


def parameter(text: str) -> str:
    """A query parameter's name as key.py sees it: its octets decoded, each one character."""
    if not text or any(c in text for c in "&=#"):
        raise ValueError(f"a query parameter's name, got {quoted(text)}")
    return text.encode().decode("latin-1")


def parameter_pattern(text: str) -> str:
    """As ``parameter``; a "*" at the end stands for any ending."""
    if "*" in text[:-1]:
        raise ValueError(f'a parameter name, "*" only at its end (utm_*), got {quoted(text)}')
    return parameter(text)


def cookie_name(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"a cookie's name, got {quoted(text)}")
    return text


def coding(text: str) -> str:
    word = text.lower()
    if word not in ("br", "gzip"):
        raise ValueError(f"br or gzip, got {quoted(text)}{did_you_mean(word, ('br', 'gzip'))}")
    return word


def media_type(text: str) -> str:
    kind = text.lower()
    if not re.fullmatch(r"[a-z0-9!#$&^_.+*-]+/[a-z0-9!#$&^_.+*-]+", kind):
        raise ValueError(f'a media type such as "text/*" or application/json, got {quoted(text)}')
    return kind


def status_or_class(text: str) -> int:
    """404 -> 404; 5xx -> 5."""
    if re.fullmatch(r"[2-5]xx", text.lower()):
        return int(text[0])
    if re.fullmatch(r"[2-5][0-9][0-9]", text):
        return int(text)
    raise ValueError(f"a status such as 404 or a class such as 5xx, got {quoted(text)}")


def status(text: str) -> int:
    if not re.fullmatch(r"[2-5][0-9][0-9]", text):
        raise ValueError(f"a status such as 200, got {quoted(text)}")
    return int(text)


def template(text: str) -> str:
    """A tag, maybe with {name} parts; which names exist is checked against the rule's paths."""
    if not re.fullmatch(r"(?:[^\s,{}\x00-\x1f\x7f]|\{[A-Za-z_][A-Za-z0-9_]*\})+", text):
        raise ValueError(
            f'a tag such as pitches or "pitch:{{id}}", without spaces and commas, got {quoted(text)}'
        )
    return text


def target_template(text: str) -> str:
    if not re.fullmatch(r"/(?:[!-z|~]|\{[A-Za-z_][A-Za-z0-9_]*\})*", text):
        raise ValueError(f'a path such as "/api/pitches/{{id}}", got {quoted(text)}')
    return text


def words(allowed: tuple[str, ...], text: str) -> str:
    """One of ``allowed``."""
    word = text.lower().replace("-", "_")
    for each in allowed:
        if word == each.replace("-", "_"):
            return each
    listed = ", ".join(allowed[:-1]) + (" or " if len(allowed) > 1 else "") + allowed[-1]
    raise ValueError(f"{listed}, got {quoted(text)}{did_you_mean(text, allowed)}")
