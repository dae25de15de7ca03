"""The key table of pools: every key beneath ``pools``, once; and what they mean together.

Rules of this file: as keys.py, whose other half it is. The loader, the schema and the reference are made from
these rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from edgeproxy.rules import values
from edgeproxy.rules.document import Mapping, Node, at
from edgeproxy.rules.keys import DURATION, FLAG, NAME, WORD, one_of
from edgeproxy.rules.kinds import WRONG, Either, Key, Many, Table, Word
from edgeproxy.rules.pools import (
    AGE,
    DEFAULT,
    Breaker,
    Canary,
    Ejection,
    Health,
    Limits,
    OriginSpec,
    PoolSpec,
    Retries,
    Timeouts,
    Tls,
)
from edgeproxy.rules.problems import did_you_mean, quoted
from edgeproxy.rules.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingOf

    from edgeproxy.rules.problems import Problems

BALANCE = ("round_robin", "least_outstanding", "latency", "key")
RETRY_ON = ("connect", "reset", "timeout", "5xx")

_ORIGIN = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?", re.ASCII | re.IGNORECASE
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def origin_url(text: str) -> str:
    """``http://host[:port]``, ``https://host[:port]``, ``unix:/path`` or ``http+unix://%2Fpath``."""
    if text.startswith("http+unix://"):
        text = "unix:" + unquote(text.removeprefix("http+unix://"))
    if text.startswith("unix:/") and text.isprintable():
        return text
    found = _ORIGIN.fullmatch(text)
    if found is None or (found[3] is not None and not 0 < int(found[3]) <= 65535):
        raise ValueError(
            f"a URL without a path such as http://10.0.0.1:8080, or unix:/path, got {quoted(text)}"
        )
    return f"{found[1].lower()}://{found[2]}{'' if found[3] is None else f':{found[3]}'}"


def pool_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"a pool's name of letters, digits and . _ -, got {quoted(text)}")
    return text


def _some(text: str) -> float:
    seconds = values.duration(text)
    if not seconds:
        raise ValueError(f"a duration longer than 0, got {quoted(text)}")
    return seconds


def _whole(least: int, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) < least:
        raise ValueError(f"a whole number, {least} or more, got {quoted(text)}")
    return int(text)


def _number(least: float, most: float, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text, re.ASCII) or not least <= float(text) <= most:
        raise ValueError(f"a number from {least:g} to {most:g}, got {quoted(text)}")
    return float(text)


def _file(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError(f"an absolute path, got {quoted(text)}")
    return Path(text)


def whole(least: int) -> Word:
    return Word(
        f"a whole number, {least} or more", partial(_whole, least), {"type": "integer", "minimum": least}
    )


def number(least: float, most: float) -> Word:
    return Word(
        f"a number from {least:g} to {most:g}", partial(_number, least, most),
        {"type": "number", "minimum": least, "maximum": most},
    )  # fmt: skip


URL = Word("a URL such as http://10.0.0.1:8080 or unix:/path", origin_url, WORD)
POOL = Word("a pool's name", pool_name, NAME)
SOME = Word(DURATION.says, _some, DURATION.json)
FILE = Word("an absolute path", _file, WORD)
PERCENT = number(0, 100)
_show = values.show_duration

ORIGIN = Table(
    (
        Key("url", URL, "Where it is: `http://`, `https://`, or `unix:/path` (also `http+unix://%2Fpath`).",
            required=True),
        Key("weight", whole(1), "Its share beside the others.", default="1"),
    ),
    says="a mapping such as {url: http://10.0.0.1:8080, weight: 3}",
    hints=(("host", "write url: http://HOST:PORT"), ("address", "write url: http://HOST:PORT"),
           ("server", "write url: http://HOST:PORT")),
)  # fmt: skip
ORIGINS = Many(Either(URL, ORIGIN))

_H = Health("/")
HEALTH = Table(
    (
        Key("path", Word("a path such as /healthz", values.target_template, {"type": "string",
            "pattern": "^/"}),
            "What is asked for. An answer below 400 is good.", required=True),
        Key("interval", SOME, "Between two checks of one origin, by each worker; a tenth more or less.",
            default=_show(_H.interval)),
        Key("timeout", SOME, "A check that takes longer has failed.", default=_show(_H.timeout)),
        Key("up", whole(1), "So many good ones in a row make an origin healthy.", default=f"{_H.up}"),
        Key("down", whole(1), "So many failed ones in a row make it unhealthy.", default=f"{_H.down}"),
        Key("host", Word("a host", values.host, WORD), "The Host it is asked with.", default="the "
            "origin's own"),
    ),
    says="a mapping such as {path: /healthz, interval: 5s}",
)  # fmt: skip

_E = Ejection()
EJECTION = Table(
    (
        Key("failures", whole(1), "So many failures in a row (no answer, or 500, 502, 503, 504) eject an "
            "origin.",
            default=f"{_E.failures}"),
        Key("slow", number(1, 1000), "So many times as slow as the others' median ejects it, too.",
            default=f"{_E.slow:g}"),
        Key("base", SOME, "For how long the first time; twice as long the second time, and so on.",
            default=_show(_E.base)),
        Key("longest", SOME, "At most so long.", default=_show(_E.longest)),
        Key("percent", PERCENT, "At most so many of a pool, in per cent, and never the last one.",
            default=f"{_E.percent:g}"),
    ),
    says="a mapping with failures, slow, base, longest, percent",
)  # fmt: skip

_B = Breaker()
BREAKER = Table(
    (
        Key("connects", whole(1), "So many failures to connect in a row open it.", default=f"{_B.connects}"),
        Key("requests", whole(1), "Of at least so many requests in 10 s ...", default=f"{_B.requests}"),
        Key("ratio", number(0, 1), "... this share failed: that opens it, too.", default=f"{_B.ratio:g}"),
        Key("base", SOME, "How long it stays open the first time; doubled each time.",
            default=_show(_B.base)),
        Key("longest", SOME, "At most so long.", default=_show(_B.longest)),
    ),
    says="a mapping with connects, requests, ratio, base, longest",
)  # fmt: skip

_R = Retries()
RETRIES = Table(
    (
        Key("attempts", whole(0), "How often a request is sent again.", default=f"{_R.attempts}"),
        Key("on", Many(one_of(*RETRY_ON)),
            "After what: `connect` (nothing was sent), `reset` (it broke off before an answer), `timeout` "
            "(only at another origin), `5xx` (500, 502, 503, 504).",
            default=", ".join(sorted(_R.on))),
        Key("backoff", SOME, "The most that is waited before the first repeat at the same origin; doubled "
            "for "
            "each further one. How long it is really waited is chance.", default=_show(_R.backoff)),
        Key("longest", SOME, "The most that is ever waited.", default=_show(_R.longest)),
        Key("budget", PERCENT, "All extra work (repeats, refreshes, warming) comes to at most so many per "
            "cent of "
            "an origin's requests ...", default=f"{_R.budget:g}"),
        Key("least", whole(0), "... and so many besides.", default=f"{_R.least}"),
    ),
    says="a mapping such as {attempts: 2, on: [connect, 5xx]}",
    hints=(("retries", 'write "attempts"'), ("max", 'write "attempts" or "longest"')),
)  # fmt: skip

TIMEOUTS = Table(
    (
        Key("connect", SOME, "To find the name and connect (and for TLS, unless `tls` is given).",
            default="--connect-timeout"),
        Key("tls", SOME, "For the TLS handshake.", default="part of connect"),
        Key("first_byte", SOME, "From the request to the head of the answer.",
            default="--first-byte-timeout"),
        Key("between_bytes", SOME, "Between two pieces of the answer.", default="--read-timeout"),
        Key("whole", SOME, "For the whole exchange, waiting for a place included.", default="no limit"),
    ),
    says="a mapping with connect, tls, first_byte, between_bytes, whole",
    hints=(("read", 'write "between_bytes"'), ("ttfb", 'write "first_byte"'), ("total", 'write "whole"')),
)  # fmt: skip

_L = Limits()
LIMITS = Table(
    (
        Key("concurrent", whole(1), "Requests under way at once at each origin, for each worker.",
            default="--origin-connections"),
        Key("queue", whole(0), "Requests that wait for their turn; the next one gets 503.",
            default=f"{_L.queue}"),
        Key("wait", SOME, "How long they wait before they get 503.", default=_show(_L.wait)),
        Key("age", SOME, "How long a connection is used again (up to a third less, by turns); then there is "
            "a new one, which finds the name's new address.",
            default=f"{_show(AGE)} for an origin given by name, else no limit"),
    ),
    says="a mapping with concurrent, queue, wait, age",
    hints=(("keepalive", 'write "age"'), ("max_age", 'write "age"')),
)  # fmt: skip

_C = Canary(())
CANARY = Table(
    (
        Key("origins", ORIGINS, "The origins to try out.", required=True),
        Key("percent", PERCENT, "Of the keys; a key always goes to the same side.",
            default=f"{_C.percent:g}"),
        Key("errors", PERCENT, "The canary is ended when its failures exceed the others' by so many per "
            "cent of "
            "the answers ...", default=f"{_C.errors:g}"),
        Key("slow", number(1, 1000), "... or when it takes so many times as long.", default=f"{_C.slow:g}"),
        Key("requests", whole(1), "Fewer answers than these in 10 s say nothing.", default=f"{_C.requests}"),
    ),
    says="a mapping such as {origins: [http://10.0.0.9:8080], percent: 5}",
)  # fmt: skip

TLS = Table(
    (
        Key("ca", FILE, "Authorities to trust, in PEM, in place of the system's."),
        Key("cert", FILE, "The certificate to show, in PEM."),
        Key("key", FILE, "Its key, where it is not in the same file."),
        Key("server_name", Word("a host", values.host, WORD), "The name in SNI and in the origin's "
            "certificate.",
            default="the URL's host"),
        Key("verify", FLAG, "Whether the origin's certificate is checked.", default="true"),
    ),
    says="a mapping with ca, cert, key, server_name, verify",
    hints=(("sni", 'write "server_name"'), ("insecure", "write verify: false")),
)  # fmt: skip

POOL_TABLE = Table(
    (
        Key("origins", ORIGINS, "The origins: URLs, or mappings with `url` and `weight`. Only the pool "
            "`default` "
            "may leave them out: it then has those of `--origin`.",
            example="origins: [{url: http://10.0.0.1:8080, weight: 3}, http://10.0.0.2:8080]"),
        Key("balance", one_of(*BALANCE),
            "Who is next: `round_robin` by weight, `least_outstanding` requests, the better of two at "
            "random by "
            "`latency`, or always the same one for the same `key`.", default="round_robin",
            example="balance: latency"),
        Key("fallback", POOL, "The pool that answers while no origin of this one is usable.", default="none",
            example="fallback: direct"),
        Key("health", HEALTH, "Checks in the background.", default="none",
            example="health: {path: /healthz, interval: 5s, timeout: 2s, up: 2, down: 3}"),
        Key("ejection", Either(FLAG, EJECTION), "Leaving out the one that fails or is slow.", default="on",
            example="ejection: {failures: 5, base: 1s, percent: 50}"),
        Key("breaker", Either(FLAG, BREAKER), "Leaving an origin alone that fails, each by itself.",
            default="on", example="breaker: {connects: 5, base: 1s}"),
        Key("retries", RETRIES, "Sending a request again: GET, HEAD, OPTIONS, TRACE, PUT and DELETE, before "
            "anything of an answer went to the client; at another origin where there is one.",
            default="once, after a failure to connect", example="retries: {attempts: 2, on: [connect, 5xx]}"),
        Key("timeouts", TIMEOUTS, "How long the parts of an exchange may take; beyond it 504.",
            example="timeouts: {connect: 1s, first_byte: 5s, between_bytes: 10s}"),
        Key("limits", LIMITS, "How much is asked of one origin at once.",
            example="limits: {concurrent: 100, queue: 200, wait: 1s}"),
        Key("canary", CANARY, "New origins that get a part of the keys first.", default="none",
            example="canary: {origins: [http://10.0.0.9:8080], percent: 5}"),
        Key("tls", TLS, "For https origins.", example="tls: {server_name: api.internal, ca: "
            "/etc/ssl/own.pem}"),
    ),
    says="a mapping such as {origins: [http://10.0.0.1:8080]}",
    hints=(("servers", 'write "origins"'), ("upstreams", 'write "origins"'), ("urls", 'write "origins"'),
           ("lb", 'write "balance"'), ("backup", 'write "fallback"'), ("retry", 'write "retries"'),
           ("timeout", 'write "timeouts"'), ("health_check", 'write "health"')),
)  # fmt: skip

Read = dict[str, Any]


@dataclass(slots=True)
class Use:
    """Where a file names a pool. Which pools there are is known when all files are read."""

    name: str
    node: Node
    key: str
    out: Problems


def read_pools(node: Node, out: Problems, uses: list[Use]) -> list[PoolSpec]:
    """The section ``pools`` of one file: those that could be read. ``uses`` gets their fallbacks."""
    if not isinstance(node, Mapping):
        out.add(node, "pools", "expected a mapping of names to pools")
        return []
    made: list[PoolSpec] = []
    for name, inner in node.pairs:
        key = f"pools.{name.text}"
        before = len(out)
        try:
            pool_name(name.text)
        except ValueError as error:
            out.add(name, key, f"expected {error}")
        read = POOL_TABLE.read(inner, key, out)
        if read is not WRONG and len(out) == before:
            made.append(_built(name.text, read, inner, f"{out.file}:{name.line}", key, out))
            if "fallback" in read:
                place = at(inner, "fallback", default=inner)
                uses.append(Use(read["fallback"], place, f"{key}.fallback", out))
    return made


def _built(name: str, read: Read, node: Node, where: str, key: str, out: Problems) -> PoolSpec:
    spec = PoolSpec(
        name=name,
        at=where,
        origins=_origins(read.get("origins", ())),
        **{k: read[k] for k in ("balance", "fallback") if k in read},
        health=Health(**read["health"]) if "health" in read else None,
        ejection=_switched(Ejection, read.get("ejection")),
        breaker=_switched(Breaker, read.get("breaker")),
        retries=_retries(read.get("retries", {})),
        timeouts=Timeouts(**read.get("timeouts", {})),
        limits=Limits(**read.get("limits", {})),
        canary=_canary(read["canary"]) if "canary" in read else None,
        tls=Tls(**read.get("tls", {})),
    )
    if not spec.origins and name != DEFAULT:
        out.add(node, key, 'expected the key "origins" (only the pool default may leave it out)')
    urls = [o.url for o in (*spec.origins, *(spec.canary.origins if spec.canary else ()))]
    for url in sorted({u for u in urls if urls.count(u) > 1}):
        out.add(at(node, "origins", default=node), f"{key}.origins", f"{url} is given twice; use weight")
    if spec.tls.key is not None and spec.tls.cert is None:
        out.add(at(node, "tls", default=node), f"{key}.tls", "expected cert beside key")
    elif spec.tls != Tls():
        try:
            tls_context(spec.tls)
        except ValueError as error:
            out.add(at(node, "tls", default=node), f"{key}.tls", str(error))
    return spec


def _origins(read: tuple[Any, ...]) -> tuple[OriginSpec, ...]:
    return tuple(OriginSpec(**o) if isinstance(o, dict) else OriginSpec(o) for o in read)


def _switched(made: Any, read: Any) -> Any:
    if isinstance(read, dict):
        return made(**read)
    return made() if read is None else made(enabled=read)


def _retries(read: Read) -> Retries:
    given: Read = {k: frozenset(v) if k == "on" else v for k, v in read.items()}
    return Retries(**given)


def _canary(read: Read) -> Canary:
    return Canary(**{**read, "origins": _origins(read["origins"])})


# -- what files say together -----------------------------------------------------------------------------


class _Line:
    def __init__(self, where: str) -> None:
        self.line = int(where.rpartition(":")[2])
        self.column = 1


def check_pools(pools: list[PoolSpec], uses: list[Use], by_file: MappingOf[str, Problems]) -> None:
    """Names given twice, names that no pool has, fallbacks that lead back."""
    known: dict[str, PoolSpec] = {}
    for pool in pools:
        other = known.setdefault(pool.name, pool)
        if other is not pool:
            _say(by_file, pool.at, f"pools.{pool.name}", f"the pool is given at {other.at} already")
    names = {*known, DEFAULT}
    for pool in pools:
        if _leads_back(pool, known):
            _say(by_file, pool.at, f"pools.{pool.name}.fallback", "leads back to this pool")
    for use in uses:
        if use.name not in names:
            use.out.add(use.node, use.key, _unknown(use.name, names))


NO_POOL = "no pool is called"


def _unknown(name: str, names: set[str]) -> str:
    near = did_you_mean(name, sorted(names)) or "; known are " + ", ".join(sorted(names))
    return f"{NO_POOL} {quoted(name)}{near}"


def _leads_back(pool: PoolSpec, known: MappingOf[str, PoolSpec]) -> bool:
    seen: set[str] = set()
    following: str | None = pool.fallback
    while following is not None and following not in seen:
        if following == pool.name:
            return True
        seen.add(following)
        following = known[following].fallback if following in known else None
    return False


def _say(by_file: MappingOf[str, Problems], where: str, key: str, message: str) -> None:
    by_file[where.rpartition(":")[0]].add(_Line(where), key, message)
