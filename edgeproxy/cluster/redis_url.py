"""What a Redis (or Valkey) URL means: one server, those that sentinels name, or a cluster.

Rules of this file:

- One table of schemes. Whatever is wrong is a ValueError of one line, which never repeats what stands before
  the last "@": a password may stand there. ``shown`` and ``identity`` have neither password nor user.
- User and password are percent-decoded; a password may also hold "/", "#" and "?" as they are.
- The files of TLS are read once (``tls_context``), before the first connection; the server's certificate is
  always verified, and its name is the one that we connect to (in a cluster and behind sentinels: the one that
  the nodes announce).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping


class Kind(Enum):
    ONE = "one server"
    UNIX = "one server, on a Unix socket"
    SENTINEL = "the primary that sentinels name"
    CLUSTER = "a cluster"


@dataclass(frozen=True, slots=True)
class _Scheme:
    kind: Kind
    tls: bool
    port: int
    form: str


SCHEMES: Mapping[str, _Scheme] = {
    "redis": _Scheme(Kind.ONE, tls=False, port=6379, form="redis://HOST:PORT/DB"),
    "rediss": _Scheme(Kind.ONE, tls=True, port=6379, form="rediss://HOST:PORT/DB"),
    "redis+unix": _Scheme(Kind.UNIX, tls=False, port=0, form="redis+unix:/PATH?db=DB"),
    "redis+sentinel": _Scheme(
        Kind.SENTINEL, tls=False, port=26379, form="redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"
    ),
    "rediss+sentinel": _Scheme(
        Kind.SENTINEL, tls=True, port=26379, form="rediss+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"
    ),
    "redis+cluster": _Scheme(Kind.CLUSTER, tls=False, port=6379, form="redis+cluster://HOST:PORT,HOST:PORT"),
    "rediss+cluster": _Scheme(Kind.CLUSTER, tls=True, port=6379, form="rediss+cluster://HOST:PORT,HOST:PORT"),
}

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)
_TLS_FILES = ("ca", "cert", "key")

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """``hosts``: the server, the sentinels, or some nodes of the cluster. ``path`` is a Unix socket's,
    ``service`` what sentinels call the primary. ``ca``, ``cert`` and ``key`` are files ("" for none: the
    system's authorities, no client certificate)."""

    scheme: str
    hosts: tuple[Address, ...] = ()
    path: str = ""
    database: int = 0
    service: str = ""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    sentinel_password_file: str = ""

    @property
    def kind(self) -> Kind:
        return SCHEMES[self.scheme].kind

    @property
    def tls(self) -> bool:
        return SCHEMES[self.scheme].tls

    @property
    def shown(self) -> str:
        """For people: where it is, no user, no password."""
        if self.path:
            return f"{self.scheme}:{self.path}"
        hosts = ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self.hosts)
        return f"{self.scheme}://{hosts}" + (f"/{self.service}" if self.service else "")

    @property
    def identity(self) -> str:
        """Names the same store whatever password it has."""
        return f"{self.shown}#{self.database}"


def is_redis(url: str) -> bool:
    return url.partition(":")[0].lower() in SCHEMES


def parse_redis_url(url: str) -> RedisUrl:
    """Raises ValueError with one line that says what was expected."""
    name, _, rest = url.partition(":")
    name = name.lower()
    scheme = SCHEMES[name]
    credentials, mark, rest = rest.removeprefix("//").rpartition("@")
    if scheme.kind is not Kind.UNIX and not url.partition(":")[2].startswith("//"):
        raise ValueError(f"store {name}: expected {scheme.form}")
    user, _, password = credentials.partition(":") if mark else ("", "", "")
    place, _, query = rest.partition("?")
    options = _options(name, scheme, query)
    common: dict[str, Any] = {
        "username": unquote(user) or None,
        "password": unquote(password) or None,
        **{key: options.get(key, "") for key in (*_TLS_FILES, "sentinel_password_file")},
    }
    if scheme.kind is Kind.UNIX:
        if not place.startswith("/"):
            raise ValueError(f"store {name}: the path of the socket begins with /; expected {scheme.form}")
        database = _database(name, options.get("db", ""))
        return RedisUrl(name, path=unquote(place), database=database, **common)
    netloc, _, path = place.partition("/")
    hosts = tuple(_host(name, scheme, host) for host in netloc.split(","))
    if scheme.kind is Kind.ONE and len(hosts) > 1:
        raise ValueError(f"store {name}: one host, or {name}+cluster:// or {name}+sentinel:// for several")
    service = ""
    if scheme.kind is Kind.SENTINEL:
        service, _, path = path.partition("/")
        if not service:
            raise ValueError(f"store {name}: the service's name is missing; expected {scheme.form}")
    database = _database(name, path.strip("/"))
    if scheme.kind is Kind.CLUSTER and database:
        raise ValueError(f"store {name}: a cluster has no databases but 0")
    return RedisUrl(name, hosts, database=database, service=unquote(service), **common)


def _host(name: str, scheme: _Scheme, text: str) -> Address:
    found = _HOST.fullmatch(text)
    port = scheme.port if found is None or found[2] is None else int(found[2])
    if found is None or not 0 < port <= 65535:
        what = "no host is named" if not text else f"{text!r} is no host"
        raise ValueError(f"store {name}: {what}; expected {scheme.form}")
    return found[1].strip("[]"), port


def _database(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{0,9}", text, re.ASCII):
        raise ValueError(f"store {name}: the database is a number, not {text!r}")
    return int(text or 0)


def _options(name: str, scheme: _Scheme, query: str) -> dict[str, str]:
    known = {
        **dict.fromkeys(_TLS_FILES if scheme.tls else (), True),
        **({"sentinel_password_file": True} if scheme.kind is Kind.SENTINEL else {}),
        **({"db": True} if scheme.kind is Kind.UNIX else {}),
    }
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        allowed = f"expected some of {', '.join(known)}" if known else "it takes none"
        tls = f" ({unknown[0]} is for {name.replace('redis', 'rediss', 1)}://)"
        hint = tls if unknown[0] in _TLS_FILES and not scheme.tls else ""
        raise ValueError(f"store {name}: unknown parameter {unknown[0]!r}{hint}; {allowed}")
    if bool(options.get("cert")) != bool(options.get("key")):
        raise ValueError(f"store {name}: cert and key go together")
    return options


def with_password(url: str, password: str) -> str:
    """The URL with the password in it, of which it has none yet. Raises ValueError."""
    if not is_redis(url):
        raise ValueError("only a redis store has a password")
    if parse_redis_url(url).password is not None:
        raise ValueError("the store's URL has a password already")
    name, _, rest = url.partition(":")
    slashes = "//" if rest.startswith("//") else ""
    user, mark, place = rest[len(slashes) :].rpartition("@")
    return f"{name}:{slashes}{user.rstrip(':') if mark else ''}:{quote(password, safe='')}@{place}"


def secret_of(path: str) -> str:
    """What a file with a password holds. Raises ValueError."""
    try:
        held = Path(path).read_text().strip()
    except OSError as error:
        raise ValueError(f"store: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        held = ""
    if not held:
        raise ValueError(f"store: {path}: expected a password")
    return held


def tls_context(url: RedisUrl) -> ssl.SSLContext | None:
    """What connections are made with; None without TLS. Raises ValueError."""
    if not url.tls:
        return None
    import ssl  # noqa: PLC0415 - every command imports this file, few make a connection

    reading = url.ca or "the system's authorities"
    try:
        context = ssl.create_default_context(cafile=url.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if url.cert:
            reading = f"{url.cert} and {url.key}"
            context.load_cert_chain(url.cert, url.key)
    except ssl.SSLError as error:
        raise ValueError(f"store {url.scheme}: {reading}: not usable ({error.reason or 'no PEM'})") from None
    except OSError as error:
        raise ValueError(f"store {url.scheme}: {reading}: {error.strerror}") from None
    return context
