"""Calls to the admin port, for the commands that talk to a running edgeproxy.

Rules of this file:

- The address is ``--admin``, EDGEPROXY_ADMIN, or the default of ``serve``; https:// and ``--admin-ca`` ask it
  with TLS. The token is in ``--token-file``, the environment, or the file that ``serve`` keeps in its
  ``--cache-dir`` on this machine; that last one is sent to a loopback address only.
- A token that goes in clear to an address that is public is warned of, once.
- A token that is refused is told with where it came from: with several instances it may be another's.
- No proxies, no redirects: a token goes where it was meant to go.
- Whatever goes wrong is one clear line: Usage (exit 2) or Failed (exit 1). What a server sent is printed
  without its control characters.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy import settings

if TYPE_CHECKING:
    import argparse
    import ssl
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from http.client import HTTPResponse

TIMEOUT = 30.0
HIT_RATIO = (
    "The hit ratio is hits / (requests - passed): passed are those that the cache was not asked for, which a "
    "rule, their method or their fields send past it, or whose last answer could not be stored."
)
"""What every command that tells one says of it."""
LARGEST_ANSWER = 64 * 1024 * 1024
LARGEST_LINE = 64 * 1024


class Usage(Exception):  # noqa: N818 - what is wrong, in the reader's words
    """The command cannot be meant like this."""


class Failed(Exception):  # noqa: N818
    """The call was refused or did not come through."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any


def add_flags(parser: argparse.ArgumentParser, *, unasked: bool = False) -> None:
    """``unasked``: without --admin the command asks nobody."""
    default = "without it none is asked" if unasked else f"default {_default_address()}"
    parser.add_argument(
        "--admin", metavar="HOST:PORT",
        help=f"the admin port of the edgeproxy meant, or its URL: https:// asks with TLS; {default}",
    )  # fmt: skip
    parser.add_argument(
        "--token-file", metavar="FILE",
        help="holds the admin token (or EDGEPROXY_ADMIN_TOKEN; default ~/.cache/edgeproxy/admin-token)",
    )  # fmt: skip
    parser.add_argument(
        "--admin-ca", metavar="FILE",
        help="the admin port speaks TLS; its certificate is of this authority (PEM), or is this one; "
        "with an https:// URL default: those that this machine trusts",
    )  # fmt: skip
    parser.add_argument(
        "--cache-dir", metavar="DIR",
        help="the --cache-dir of the instance meant: its admin-token is used; default ~/.cache/edgeproxy",
    )  # fmt: skip


def guarded(run: Callable[[], int]) -> int:
    """Exit codes: what ``run`` says, 2 for wrong usage, 1 for a call that failed, with one line."""
    try:
        return run()
    except Usage as wrong:
        print(f"edgeproxy: {printable(str(wrong))}", file=sys.stderr)
        return 2
    except Failed as failed:
        print(f"edgeproxy: {printable(str(failed))}", file=sys.stderr)
        return 1


def call(
    args: argparse.Namespace,
    method: str,
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    tokens: Sequence[str] = ("EDGEPROXY_ADMIN_TOKEN",),
    accept: Sequence[int] = (200,),
    patience: float = TIMEOUT,
) -> Answer:
    """One call. Statuses not in ``accept`` raise Failed with what the server said of them."""
    with _asked(args, method, path, body, tokens, "application/json", patience) as (response, target):
        told = target.json(response.read(LARGEST_ANSWER), response.status)
    if response.status not in accept:
        raise Failed(_said(response.status, told) + target.aside(response.status))
    return Answer(response.status, told)


def lines(
    args: argparse.Namespace, method: str, path: str, body: Mapping[str, object]
) -> Iterator[dict[str, Any]]:
    """One call whose answer is a stream of JSON objects, one a line, as they come."""
    tokens = ("EDGEPROXY_ADMIN_TOKEN",)
    with _asked(args, method, path, body, tokens, "application/x-ndjson") as (response, target):
        if response.status != 200:
            told = target.json(response.read(LARGEST_ANSWER), response.status)
            raise Failed(_said(response.status, told) + target.aside(response.status))
        while line := response.readline(LARGEST_LINE):
            told = target.json(line, response.status)
            if isinstance(told, dict):
                yield told


@dataclass(frozen=True, slots=True)
class _Target:
    """Whom a call was made to, and the token's origin."""

    address: settings.Address
    whence: str

    def json(self, raw: bytes, status: int) -> Any:
        import json  # noqa: PLC0415 - what only a call needs

        try:
            return json.loads(raw)
        except ValueError:
            raise Failed(f"{self.address} is not an admin port of edgeproxy: {status}, no JSON") from None

    def aside(self, status: int) -> str:
        return f"; the token is from {self.whence}" if self.whence and status == 401 else ""


@contextmanager
def _asked(
    args: argparse.Namespace,
    method: str,
    path: str,
    body: Mapping[str, object] | None,
    tokens: Sequence[str],
    wanted: str,
    patience: float = TIMEOUT,
) -> Iterator[tuple[HTTPResponse, _Target]]:
    import http.client  # noqa: PLC0415 - what only a call needs
    import json  # noqa: PLC0415

    environ = settings.environment()
    address, tls = _address(args, environ)
    headers = {"Accept": wanted}
    token, whence = _token(args, environ, tokens, address)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
        if not tls:
            _warn_if_public(address.host)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=patience)
    if tls:
        context = _trusting(args.admin_ca)
        connection = http.client.HTTPSConnection(
            address.host, address.port, timeout=patience, context=context
        )
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        yield connection.getresponse(), _Target(address, whence if token is not None else "")
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = "is edgeproxy running?"
        if not tls and isinstance(error, http.client.RemoteDisconnected):
            hint = "does it speak TLS? then write https://, or --admin-ca"
        elif tls:
            said, hint = _tls_said(error, args.admin_ca) or (said, hint)
        raise Failed(f"no answer from the admin port {address}: {said}; {hint}") from None
    finally:
        connection.close()


def _said(status: int, told: object) -> str:
    if isinstance(told, dict) and isinstance(told.get("detail"), str):
        return f"refused ({status}): {told['detail']}"
    return f"refused ({status})"


def _tls_said(error: Exception, authority: str | None) -> tuple[str, str] | None:
    """What went wrong and what may help, where that is TLS."""
    import ssl  # noqa: PLC0415 - what only a call needs

    if isinstance(error, ssl.SSLCertVerificationError):
        named = f"is {authority} its authority?" if authority else "--admin-ca FILE says whom to trust"
        return f"its certificate was not accepted ({error.verify_message.rstrip('.')})", named
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})", "does it speak TLS? if not, write http://"
    return None


def _trusting(authority: str | None) -> ssl.SSLContext:
    """None: what this machine trusts."""
    import ssl  # noqa: PLC0415 - what only a call needs

    try:
        return ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise Usage(f"--admin-ca: {authority}: {error.strerror or error}") from None


def _default_address() -> str:
    return next(o.default or "" for o in settings.OPTIONS if o.name == "admin")


_URL = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


def _address(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[settings.Address, bool]:
    """And whether it is asked with TLS."""
    where = "EDGEPROXY_ADMIN" if not args.admin and environ.get("EDGEPROXY_ADMIN") else "--admin"
    given = str(args.admin or environ.get("EDGEPROXY_ADMIN") or _default_address()).strip()
    if "@" in given:  # not shown: it may be a password
        raise Usage(f"{where}: expected no user or password; the admin token goes into --token-file")
    authority = getattr(args, "admin_ca", None)
    tls, rest = authority is not None, given
    url = _URL.fullmatch(given)
    if url is not None:
        scheme, rest, more = url[1].lower(), url[2], url[3]
        if more not in ("", "/") or not rest or rest.startswith(":"):
            such = f"{scheme}://127.0.0.1:8081"
            raise Usage(f"{where}: {given!r}: expected host and port and no more, such as {such}")
        if tls and scheme == "http":
            raise Usage(f"{where}: {given!r}: expected https://, since --admin-ca is given")
        tls = scheme == "https"
        if re.fullmatch(r"\[[^\]]*\]|[^:]*", rest):
            rest = f"{rest}:{443 if tls else 80}"
    try:
        address = settings.address(rest)
    except ValueError as error:
        raise Usage(f"{where}: {given!r}: {error}, or a URL such as https://127.0.0.1:8081") from None
    # A server that listens everywhere is reached here.
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    return settings.Address(local.get(address.host, address.host), address.port), tls


def _token(
    args: argparse.Namespace, environ: Mapping[str, str], names: Sequence[str], address: settings.Address
) -> tuple[str | None, str]:
    """The token, and where it is from."""
    from edgeproxy.admin.auth import Auth, is_loopback  # noqa: PLC0415 - what only a call needs
    from edgeproxy.admin.token_file import TOKEN_FILE, read_token  # noqa: PLC0415

    token, whence = None, ""
    named = next((name for name in names if environ.get(name)), None)
    directory = args.cache_dir or environ.get("EDGEPROXY_CACHE_DIR")
    kept = (Path(directory) if directory else settings.default_cache_dir(environ)) / TOKEN_FILE
    try:
        if args.token_file:
            token, whence = read_token(Path(args.token_file), private=False), str(args.token_file)
        elif named is not None and not args.cache_dir:
            token, whence = environ[named], named
        elif args.cache_dir and not is_loopback(address.host):
            raise Usage(
                f"--cache-dir: the token kept there is sent to a loopback address only, not to "
                f"{address.host}; give it with --token-file"
            )
        elif args.cache_dir or (is_loopback(address.host) and kept.is_file()):
            token, whence = read_token(kept), str(kept)
        Auth(token)
    except ValueError as error:
        raise Usage(str(error)) from None
    return token, whence


@cache
def _warn_if_public(host: str) -> None:
    """Once for each: some commands ask again and again. Where a name leads to is not known here."""
    import ipaddress  # noqa: PLC0415 - what only a call needs

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not (address.is_loopback or address.is_private):
        print(
            f"edgeproxy: warning: the token goes to {host} in clear: use https:// or --admin-ca",
            file=sys.stderr,
        )


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def counted(number: object, what: str) -> str:
    """``1 rule``, ``2 rules``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def octets(number: float) -> str:
    """``1536`` -> ``1.5 KiB``."""
    if number < 1024:
        return f"{number:.0f} B"
    for unit in _UNITS:
        number /= 1024
        if number < 1024 or unit == _UNITS[-1]:
            break
    return f"{number:.1f} {unit}"
