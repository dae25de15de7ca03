"""Settings: every flag, where its value came from, and what is wrong with it. The only reader of os.environ.

Rules of this file:

- One table. A row gives the flag, its EDGEPROXY_* variable, its key in a --config file, the default, the
  help. Flag over variable over file over default.
- A wrong value is one clear line that names where it was given and what was expected: SettingsError.
- What is not wrong but hardly meant is a warning (``doubts``): an unknown variable, no rules given.
- Secrets come from files or the environment, never from flags: flags are seen by everyone in ``ps``.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import asdict, dataclass, field
from dataclasses import fields as fields_of
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.cluster.redis_url import is_redis, with_password
from edgeproxy.cpus import usable_cpus
from edgeproxy.networks import Network, networks_in

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping


class SettingsError(ValueError):
    """One line: where, what was given, what was expected."""


def environment() -> dict[str, str]:
    """The process's environment, as a copy."""
    return dict(os.environ)  # noqa: TID251


@dataclass(frozen=True, slots=True)
class Address:
    """HOST:PORT. ``str()`` gives it back; an IPv6 host is in brackets there."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# -- kinds of values: text -> value, or ValueError that says what was expected ---------------------------


def text(value: str) -> str:
    return value


_HOST = re.compile(r"\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\]|[A-Za-z0-9._-]*")


def address(value: str) -> Address:
    host, mark, port = value.strip().rpartition(":")
    if not mark or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535 or not _HOST.fullmatch(host):
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    if host and not all(0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
        raise ValueError("no host has such a name: between its dots are 1 to 63 letters")
    return Address(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104


_UNITS = {
    "": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
    "k": 1024, "m": 1024**2, "g": 1024**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4,
}  # fmt: skip


def size(value: str) -> int:
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?) ?([a-zA-Z]*)", value.strip())
    octets = float(found[1]) * _UNITS.get(found[2].lower(), 0) if found else 0.0
    if found is None or found[2].lower() not in _UNITS or octets >= 2**63:
        raise ValueError("expected a size, such as 256MiB or 1GB")
    return int(octets)


def store_size(value: str) -> int:
    if size(value) < 1024**2:
        raise ValueError("expected a size of 1MiB or more")
    return size(value)


def head_size(value: str) -> int:
    if not 1024 <= size(value) <= 1024**2:
        raise ValueError("expected a size from 1KiB to 1MiB")
    return size(value)


_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|[smhd]?)", value.strip())
    if found is None:
        raise ValueError("expected a duration, such as 500ms, 10s or 1h")
    return float(found[1]) * _SECONDS[found[2]]


def timeout(value: str) -> float:
    if not seconds(value):
        raise ValueError("expected a duration longer than 0, such as 500ms or 10s")
    return seconds(value)


def count(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < 1:
        raise ValueError("expected a whole number, 1 or more")
    return int(value)


def limit(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError("expected a whole number, or 0 for no limit")
    return int(value)


AUTO = 0
"""As many workers as there are CPUs for them (``_workers``)."""


def workers(value: str) -> int:
    if value == "auto":
        return AUTO
    try:
        return count(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


def some(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError("expected a whole number, 0 or more")
    return int(value)


def rate(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError("expected a rate from 0 to 1")
    return number


_ORIGIN = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?", re.ASCII | re.IGNORECASE
)


def origin_url(value: str) -> str:
    if value.startswith("unix:/") and value.isprintable():
        return value
    found = _ORIGIN.fullmatch(value)
    if found is None and _ORIGIN.fullmatch(f"http://{value}"):
        raise ValueError(f"http:// is missing; expected a URL, such as http://{value}")
    if found is None or (found[3] is not None and not 0 < int(found[3]) <= 65535):
        raise ValueError("expected a URL without a path, such as http://127.0.0.1:9000")
    return f"{found[1].lower()}://{found[2]}{'' if found[3] is None else f':{found[3]}'}"


def origin_urls(value: str) -> str:
    """One or several, separated by commas."""
    return ",".join(dict.fromkeys(origin_url(each.strip()) for each in split_origins(value)))


def split_origins(value: str) -> tuple[str, ...]:
    """At commas before what begins an origin: one in the path of a Unix socket is part of it."""
    return tuple(_BETWEEN_ORIGINS.split(value))


_BETWEEN_ORIGINS = re.compile(r",\s*(?=unix:/|https?://)", re.IGNORECASE)


def collector(value: str) -> str:
    """The base URL of a collector; "" for none."""
    if value and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value, re.ASCII | re.IGNORECASE):
        raise ValueError("expected a URL, such as http://127.0.0.1:4318")
    return value


def host(value: str) -> str:
    if not value:
        return ""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", value, re.ASCII)
    if found is None or (found[2] is not None and not 0 < int(found[2]) <= 65535):
        raise ValueError("expected a host, such as api.example or api.example:8443")
    return value.lower()


def certificates(value: str) -> tuple[tuple[Path, Path], ...]:
    """Chain and key of each, the same file where only one is given."""
    pairs = []
    for each in filter(None, (part.strip() for part in value.split(","))):
        chain, _, key = each.partition(":")
        if not chain:
            raise ValueError("expected FILE or FILE:KEYFILE")
        pairs.append((Path(chain), Path(key or chain)))
    return tuple(pairs)


FIELDS = (
    "x-cache-status", "cache-status", "proxy-status", "server-timing", "x-request-id", "x-edge-location",
    "x-response-time", "age", "via",
)  # fmt: skip


def fields(value: str) -> frozenset[str]:
    return _some_of(FIELDS, value)


def _some_of(known: tuple[str, ...], value: str) -> frozenset[str]:
    names = {name.strip().lower() for name in value.split(",") if name.strip()}
    unknown = sorted(names.difference(known))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; expected some of {', '.join(known)}")
    return frozenset(names)


TOLD = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")


def told(value: str) -> frozenset[str]:
    return _some_of(TOLD, value)


def pseudonym(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~-]*", value):
        raise ValueError("expected a name of letters, digits, - . _, beginning with a letter")
    return value


def printable(value: str) -> str:
    if not value.isprintable() or not value.isascii():
        raise ValueError("expected printable ASCII")
    return value


def rules(value: str) -> str:
    if value not in ("", "none") and not Path(value).is_dir():
        raise ValueError("expected a directory of rule files, or none")
    return value


def switch(value: str) -> bool:
    if value.lower() not in ("on", "off"):
        raise ValueError("expected on or off")
    return value.lower() == "on"


def alerts(value: str) -> str:
    if value not in ("", "on", "off") and not Path(value).is_file():
        raise ValueError("expected on, off, or a file that says who is told (edgeproxy alerts --help)")
    return value


def level(value: str) -> str:
    if value.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("expected debug, info, warning or error")
    return value.lower()


def followed(value: str) -> str:
    if value.lower() not in ("trusted", "all", "none"):
        raise ValueError("expected trusted, all or none")
    return value.lower()


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    kind: Callable[[str], Any]
    default: str | None
    metavar: str
    help: str

    @property
    def variable(self) -> str:
        return f"EDGEPROXY_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


OPTIONS = (
    Option("origin", origin_urls, None, "URL",
           "the API behind it (http://, https:// or unix:/path); given several times: a pool of them"),
    Option("origin_host", host, "", "HOST", "the Host that the origin gets; default: the client's"),
    Option("rules", rules, "", "DIR|none",
           "rule files; none: plain HTTP caching (default: the shipped rules of the demo API)"),
    Option("listen", address, "127.0.0.1:8080", "HOST:PORT", "where clients connect"),
    Option("admin", address, "127.0.0.1:8081", "HOST:PORT", "where operators connect"),
    Option("trusted_proxies", networks_in, "", "CIDR,…",
           "proxies whose X-Forwarded-For, X-Forwarded-Proto and Forwarded are believed; default: none"),
    Option("forwarded_fields", told, "x-forwarded-for,x-forwarded-host,x-forwarded-proto", "NAMES",
           "what the origin is told of clients, of these and forwarded; x-forwarded-host only with "
           "--origin-host; what clients send of them is dropped"),
    Option("trace_from", followed, "trusted", "trusted|all|none",
           "whose X-Request-ID, traceparent and tracestate are taken over: the trusted proxies', all, none; "
           "of others they are dropped"),
    Option("proxy_protocol", networks_in, "", "CIDR,…",
           "proxies that begin each connection with a PROXY protocol head (1 or 2), and with TLS the "
           "only ones that may connect; default: none"),
    Option("tls_certificate", certificates, "", "FILE[:KEY]",
           "serve HTTPS: certificate chain and key in PEM, in one file or two; of several, by the name "
           "asked for; new files are taken within 10 s"),
    Option("tls_client_ca", text, "", "FILE", "clients have to show a certificate of these authorities"),
    Option("admin_tls_certificate", certificates, "", "FILE[:KEY]", "the same for the admin port"),
    Option("admin_tls_client_ca", text, "", "FILE", "the same for the admin port"),
    Option("allow", networks_in, "", "CIDR,…", "answer only these clients; default: all"),
    Option("deny", networks_in, "", "CIDR,…", "do not answer these clients; default: none"),
    Option("store", text, "", "URL",
           "shared store: memory:, lmdb:PATH, redis://…, memcached://…; "
           "default: LMDB in the cache dir, for this origin"),
    Option("store_password_file", text, "", "FILE",
           "holds the password of a redis store (or EDGEPROXY_STORE_PASSWORD)"),
    Option("cache_dir", text, "", "DIR",
           "where the default store, the admin token and the purge numbers live; "
           "default ~/.cache/edgeproxy"),
    Option("memory", size, "256MiB", "SIZE",
           "L1: memory for entries, overhead counted; of several workers each has an equal part"),
    Option("store_size", store_size, "2GiB", "SIZE", "L2: the most an LMDB store may take"),
    Option("store_budget", timeout, "50ms", "TIME", "the longest a request waits for the shared store"),
    Option("node", printable, "", "NAME",
           "this node's name among those that share a Redis; default: its host name and port"),
    Option("l1_lease", timeout, "30s", "TIME",
           "how long a node that is cut off from Redis, and so from purges, serves from memory"),
    Option("purge_wait", timeout, "1s", "TIME",
           "how long a purge, or the answer to a write, waits for the other nodes"),
    Option("warm_start", switch, "on", "on|off",
           "remember what is most wanted, and ask for it again after a start"),
    Option("rule_history", some, "20", "N",
           "versions of the rules kept in the cache dir, for 'edgeproxy rules'; 0: none"),
    Option("workers", workers, "auto", "N|auto",
           "worker processes; auto: one for each CPU that we may use, and one alone with --store memory:"),
    Option("crash_limit", count, "5", "N", "worker crashes within 30 s after which edgeproxy gives up"),
    Option("location", printable, "", "NAME", "names this edge in X-Edge-Location"),
    Option("name", pseudonym, "edgeproxy", "NAME", "our name in Cache-Status and Via"),
    Option("connect_timeout", timeout, "3s", "TIME", "to connect to the origin"),
    Option("first_byte_timeout", timeout, "10s", "TIME", "for the head of the origin's answer"),
    Option("read_timeout", timeout, "30s", "TIME", "between two pieces of the origin's body"),
    Option("origin_connections", count, "256", "N", "requests in flight at the origin, for each worker"),
    Option("max_connections", count, "10000", "N", "client connections, for each worker"),
    Option("client_connections", limit, "1000", "N",
           "connections of one client (IPv6: of a /64), for each worker; 0: any number"),
    Option("unlimited_clients", networks_in, "127.0.0.0/8,::1", "CIDR,…",
           "whom --client-connections is not for, besides the trusted proxies"),
    Option("max_requests", count, "5000", "N",
           "requests under way, for each worker: when there are more, only the cache answers"),
    Option("max_lag", seconds, "100ms", "TIME",
           "a worker that is late by so much all the time answers a part of what needs the origin with 503; "
           "0: never"),
    Option("websockets", count, "5000", "N", "open WebSockets, for each worker"),
    Option("max_body", size, "1TiB", "SIZE", "largest request body"),
    Option("max_head", head_size, "16KiB", "SIZE", "longest request line and largest field"),
    Option("head_timeout", timeout, "10s", "TIME", "for the head of a request to be here"),
    Option("min_rate", size, "500", "SIZE",
           "octets a second that clients have to send of a body and to take of an answer; 0: any"),
    Option("keepalive", timeout, "75s", "TIME", "how long an idle client connection is kept"),
    Option("drain_delay", seconds, "0s", "TIME",
           "how long new connections are still taken on SIGTERM, while /readyz says 503 and a load balancer "
           "takes notice"),
    Option("drain_timeout", seconds, "30s", "TIME", "how long requests may take to end on SIGTERM"),
    Option("drain_grace", seconds, "2s", "TIME", "how long idle connections are still answered meanwhile"),
    Option("access_log", text, "-", "FILE|-|off", "one JSON line a request; - is standard output"),
    Option("access_log_sample", rate, "1", "RATE", "share of the requests that is logged, 0 to 1"),
    Option("otlp", collector, "", "URL",
           "export spans to this OpenTelemetry collector (OTLP/HTTP), such as http://127.0.0.1:4318"),
    Option("trace_sample", rate, "0.01", "RATE",
           "share of the requests without a trace of their own (traceparent) that is recorded, 0 to 1"),
    Option("lane", switch, "on", "on|off",
           "the faster path for hits from memory; off only to look for faults"),
    Option("hide_fields", fields, "", "NAMES", f"response fields not to add, of {', '.join(FIELDS)}"),
    Option("show_fields", fields, "", "NAMES", "response fields to add that are off else: x-response-time"),
    Option("admin_token_file", text, "", "FILE",
           "holds the token that state changes need (or EDGEPROXY_ADMIN_TOKEN)"),
    Option("read_token_file", text, "", "FILE",
           "holds the token that reads need (or EDGEPROXY_READ_TOKEN); default: none"),
    Option("purge_rate", limit, "100", "N",
           "purges a second that the admin port takes, ten seconds' worth at once; 0: any number"),
    Option("alerts", alerts, "", "FILE|on|off",
           "watch for alerts and tell receivers, as the file says (edgeproxy alerts --help); on: watch only; "
           "default: off, or on with EDGEPROXY_ALERT_URLS"),
    Option("log_level", level, "info", "LEVEL", "debug, info, warning or error"),
)  # fmt: skip


SEVERAL = frozenset(("origin", "tls_certificate", "admin_tls_certificate"))
"""Flags that may be given several times."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All values, checked. Durations in seconds, sizes in octets. ``rules`` None: plain HTTP caching."""

    origin: str
    """One or several, separated by commas."""
    origin_host: str
    """"" leaves the client's."""
    rules: Path | None
    listen: Address
    admin: Address
    trusted_proxies: tuple[Network, ...]
    forwarded_fields: frozenset[str]
    trace_from: str
    proxy_protocol: tuple[Network, ...]
    tls_certificate: tuple[tuple[Path, Path], ...]
    """Chain and key of each."""
    tls_client_ca: str
    admin_tls_certificate: tuple[tuple[Path, Path], ...]
    admin_tls_client_ca: str
    allow: tuple[Network, ...]
    deny: tuple[Network, ...]
    store: str = field(repr=False)
    cache_dir: Path
    memory: int
    """Of all workers together."""
    store_size: int
    store_budget: float
    node: str
    l1_lease: float
    purge_wait: float
    warm_start: bool
    rule_history: int
    workers: int
    crash_limit: int
    location: str
    name: str
    connect_timeout: float
    first_byte_timeout: float
    read_timeout: float
    origin_connections: int
    max_connections: int
    client_connections: int
    unlimited_clients: tuple[Network, ...]
    max_requests: int
    max_lag: float
    websockets: int
    max_body: int
    max_head: int
    head_timeout: float
    min_rate: int
    keepalive: float
    drain_delay: float
    drain_timeout: float
    drain_grace: float
    access_log: str
    access_log_sample: float
    otlp: str
    trace_sample: float
    lane: bool
    hide_fields: frozenset[str]
    show_fields: frozenset[str]
    purge_rate: int
    alerts: str
    log_level: str
    admin_token: str | None = field(default=None, repr=False)
    read_token: str | None = field(default=None, repr=False)
    alert_urls: str | None = field(default=None, repr=False)
    """With spaces between them."""

    @property
    def origins(self) -> tuple[str, ...]:
        return split_origins(self.origin)


HANDED_DOWN = "EDGEPROXY_HANDED_DOWN"
ALERT_URLS = "EDGEPROXY_ALERT_URLS"


@dataclass(frozen=True, slots=True)
class HandedDown:
    """What a worker gets from its parent. ``name`` is for people; the two numbers are open descriptors."""

    name: str
    listen: int
    """The listening socket of all workers."""
    channel: int
    """The parent's end of it closes when the parent dies (worker_process.py has the words)."""
    directory: str
    """Of this node alone: the workers' own sockets and what else they share while the parent lives."""
    control: str
    """Where this worker's own socket is to be, in ``directory``."""
    state: str
    """Where the purge table is, unless the store has a place for it."""
    rules: str | None
    """The copy of the rule files in force."""
    config: str | None = None
    """The copy of the --config file in force."""
    clock: float | None = None
    """What all of them add to the machine's steady clock (clock.py), so that they agree on the time."""
    candidate: str | None = None
    """Where the rules are that are tried beside them, for ``percent`` of the keys; of the other requests one
    in ``sample`` is compared."""
    percent: float = 0.0
    sample: int = 0

    @property
    def slot(self) -> int:
        """Its place among the workers, from 0; its successor has the same."""
        number = self.name.rpartition(" ")[2]
        return int(number) - 1 if number.isdecimal() else 0

    def variables(self) -> dict[str, str]:
        """To be put into the worker's environment."""
        return {HANDED_DOWN: json.dumps(asdict(self))}


def handed_down(environ: Mapping[str, str]) -> HandedDown | None:
    """None in a process that no parent of ours has started. The parent may be older or newer than we are."""
    told = environ.get(HANDED_DOWN)
    if told is None:
        return None
    known = {each.name for each in fields_of(HandedDown)}
    return HandedDown(**{name: value for name, value in json.loads(told).items() if name in known})


def add_flags(parser: argparse.ArgumentParser, names: tuple[str, ...] | None = None) -> None:
    """The table's flags (or those named), without defaults: only what was given is set."""
    for option in OPTIONS:
        if names is None or option.name in names:
            shown = f"; default {option.default}" if option.default else ""
            parser.add_argument(
                option.flag,
                dest=option.name,
                metavar=option.metavar,
                help=option.help + shown,
                action="append" if option.name in SEVERAL else "store",
            )
    if names is None:
        parser.add_argument(
            "--config", metavar="FILE", help="YAML or TOML file that holds any of these flags"
        )


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Settings for ``serve``. Raises SettingsError."""
    given = gather(flags, environ)
    if given.get("origin") is None:
        raise SettingsError("--origin: missing; expected the URL of the API, such as http://127.0.0.1:9000")
    directory = Path(given.pop("cache_dir") or default_cache_dir(environ))
    token_file, read_file = given.pop("admin_token_file"), given.pop("read_token_file")
    store = _store(given, environ) or _default_store(given, directory)
    given["workers"] = given["workers"] or _workers(store)
    return Settings(
        **{k: v for k, v in given.items() if k not in ("rules", "store", "store_password_file")},
        rules=rules_directory(given["rules"]),
        store=store,
        cache_dir=directory,
        admin_token=_secret(token_file, "--admin-token-file", environ.get("EDGEPROXY_ADMIN_TOKEN")),
        read_token=_secret(read_file, "--read-token-file", environ.get("EDGEPROXY_READ_TOKEN")),
        alert_urls=environ.get(ALERT_URLS) or None,
    )


def load_store(flags: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The store that ``serve`` would use with these flags. Raises SettingsError."""
    given = gather(flags, environ)
    store = _store(given, environ)
    if store:
        return store
    if given["origin"] is None:
        raise SettingsError(
            "--store: missing; expected lmdb:PATH, or the --origin whose default store is meant"
        )
    return _default_store(given, Path(given["cache_dir"] or default_cache_dir(environ)))


def _store(given: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The store that was named, with its password; "" if none was."""
    flag = "--store-password-file"
    path, store = given["store_password_file"], str(given["store"])
    password = _secret(path, flag, environ.get("EDGEPROXY_STORE_PASSWORD"))
    if password is None or (not path and not is_redis(store)):
        return store  # a variable may be there for others
    try:
        return with_password(store, password)
    except ValueError as error:
        raise SettingsError(f"{flag if path else 'EDGEPROXY_STORE_PASSWORD'}: {error}") from None


def _workers(store: str) -> int:
    """Of memory alone each worker would have its own, and fetch for itself what the others have."""
    return 1 if store == "memory:" else usable_cpus()


def _default_store(given: Mapping[str, Any], directory: Path) -> str:
    """One for each origin: what one has said must never be given for another's."""
    named = f"{given['origin']}\n{given['origin_host']}"
    return f"lmdb:{directory / f'store-{blake2b(named.encode(), digest_size=6).hexdigest()}'}"


BESIDE = (
    "EDGEPROXY_CONFIG",
    "EDGEPROXY_ADMIN_TOKEN",
    "EDGEPROXY_READ_TOKEN",
    "EDGEPROXY_STORE_PASSWORD",
    ALERT_URLS,
    HANDED_DOWN,
)
"""Variables that are ours and belong to no flag."""
_OF_A_SERVICE = re.compile(r"EDGEPROXY_(SERVICE_(HOST|PORT)|PORT)(_[A-Z0-9_]+)?")
"""Kubernetes sets these by itself where a Service is called edgeproxy."""


def doubts(flags: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """What is not wrong but hardly meant, a line each, for the log of ``serve``. Raises SettingsError."""
    known = {option.variable for option in OPTIONS}.union(BESIDE)
    lines = [
        f"{name}: no setting of edgeproxy, so it does nothing{_meant(name, known)}"
        for name in sorted(environ)
        if name.startswith("EDGEPROXY_") and name not in known and not _OF_A_SERVICE.fullmatch(name)
    ]
    if not gather(flags, environ)["rules"]:
        lines.append(
            "no --rules given: the shipped rules for the demo API are in force; "
            "say --rules DIR for yours or --rules none"
        )
    return lines


def _meant(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?``, or nothing where nothing is near."""
    import difflib  # noqa: PLC0415 - for a mistake alone

    # What all have in common says nothing about how near they are.
    bare = {each.removeprefix("EDGEPROXY_"): each for each in sorted(known)}
    near = difflib.get_close_matches(name.removeprefix("EDGEPROXY_"), bare, n=1, cutoff=0.7)
    return f"; did you mean {bare[near[0]]}?" if near else ""


def gather(flags: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The value of every option, checked, from where it was given first."""
    config = flags.get("config") or environ.get("EDGEPROXY_CONFIG")
    in_file = _config_file(Path(config)) if config else {}
    values: dict[str, Any] = {}
    for option in OPTIONS:
        raw, where = option.default, option.flag
        if option.name in in_file:
            raw, where = in_file[option.name], f"{config}: {option.name}"
        if option.variable in environ:
            raw, where = environ[option.variable], option.variable
        if flags.get(option.name) is not None:
            raw, where = flags[option.name], option.flag
            raw = raw if isinstance(raw, str) else ",".join(raw)
        if raw is None:
            values[option.name] = None
            continue
        try:
            values[option.name] = option.kind(raw)
        except ValueError as error:
            raise SettingsError(f"{where}: {_shown(raw)}: {error}") from None
    return values


def _shown(raw: str) -> str:
    """What was given, short, and without what may be a password in a URL."""
    scheme, mark, rest = raw.partition("://")
    if mark and "@" in rest:
        raw = f"{scheme}://***@{rest.rpartition('@')[2]}"
    return repr(raw if len(raw) <= 200 else f"{raw[:200]}...")


def _config_file(path: Path) -> dict[str, str]:
    import yaml  # noqa: PLC0415 - every command imports this file, few read a config file

    try:
        content = path.read_bytes()
        data = tomllib.loads(content.decode()) if path.suffix == ".toml" else _yaml(content)
    except OSError as error:
        raise SettingsError(f"--config: {path}: {error.strerror}") from None
    except (yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config: {path}: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(
            f"--config: {path}: expected flags and their values, such as 'listen: 0.0.0.0:80'"
        )
    known = {o.name for o in OPTIONS}
    values: dict[str, str] = {}
    for key, value in data.items():
        name = str(key).removeprefix("--").replace("-", "_")
        if name not in known:
            meant = _meant(name, known).replace("_", "-")
            raise SettingsError(
                f"--config: {path}: unknown key {key!r}" + (meant or "; expected a flag of 'edgeproxy serve'")
            )
        values[name] = _single(value, f"--config: {path}: {key}")
    return values


def _yaml(content: bytes) -> Any:
    """Every scalar as it is written: YAML would take ``off`` for false and ``1:20`` for 80."""
    import yaml  # noqa: PLC0415

    # This loader makes strings, lists and dicts only.
    return yaml.load(content, Loader=yaml.BaseLoader)  # noqa: S506  # nosec B506


def _single(value: object, where: str) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, str | int | float):
        raise SettingsError(f"{where}: expected a single value")
    return str(value)


def _secret(path: str, flag: str, given: str | None) -> str | None:
    if not path:
        return given or None
    try:
        token = Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{flag}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{flag}: {path}: expected a token, the file is not text") from None
    if not token:
        raise SettingsError(f"{flag}: {path}: expected a token, the file is empty")
    return token


def rules_directory(value: str) -> Path | None:
    """None for "none", the shipped rules for "", else the directory, which must be there."""
    if value == "none":
        return None
    if not value:
        return shipped_rules()
    try:
        return Path(rules(value))
    except ValueError as error:
        raise SettingsError(f"--rules: {_shown(value)}: {error}") from None


def shipped_rules() -> Path:
    """The rule files that come with the package (in a checkout: the ones at the top)."""
    package = Path(__file__).resolve().parent
    packaged = package / "shipped_rules"
    return packaged if packaged.is_dir() else package.parent / "rules"


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "edgeproxy"
    home = environ.get("HOME")
    if home and home != "/":
        return Path(home) / ".cache" / "edgeproxy"
    return Path("/var/cache/edgeproxy")
