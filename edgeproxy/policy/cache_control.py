"""Cache-Control and CDN-Cache-Control -> frozen Directives.

Rules of this file:

- Names are compared without regard to case; unknown directives are ignored (RFC 9111 §5.2, §5.2.3).
- A directive given more than once: the first occurrence counts, which is one of the two things that
  RFC 9111 §4.2.1 offers. For no-cache and private the unqualified form wins over the qualified one, since
  "the most restrictive directive should be honored" (the same section).
- A lifetime that cannot be read is 0: RFC 9111 §4.2.1 has caches take invalid freshness for stale.
  Invalid stale windows and invalid request directives are as if they were not there: each of them only
  ever loosens or asks.
- A targeted field is a structured dictionary (RFC 9213 §2.1). Empty, unparsable or with a value of the
  wrong type it is ignored, and Cache-Control holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from edgeproxy.policy.http_date import MAX_DELTA, delta_seconds
from edgeproxy.policy.lists import LONGEST, OWS, REMEMBERED, split_list, unquote
from edgeproxy.policy.structured import parse_dictionary

if TYPE_CHECKING:
    from collections.abc import Iterable
    from functools import _lru_cache_wrapper

    from edgeproxy.policy.head import Headers

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Directives:
    """What a Cache-Control field says. Durations in seconds; None: not said.

    ``no_cache`` and ``private`` are the unqualified forms; the qualified ones name fields in lower case.
    ``max_stale`` without a value is 2**31. ``targeted``: from CDN-Cache-Control, so that Cache-Control and
    Expires do not count (RFC 9213 §2.2).
    """

    max_age: int | None = None
    s_maxage: int | None = None
    no_store: bool = False
    no_cache: bool = False
    no_cache_fields: tuple[str, ...] = ()
    private: bool = False
    private_fields: tuple[str, ...] = ()
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    no_transform: bool = False
    immutable: bool = False
    """RFC 8246: for browsers, that would revalidate fresh answers on reload. A shared cache does not."""
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    max_stale: int | None = None
    min_fresh: int | None = None
    only_if_cached: bool = False
    targeted: bool = False


NO_DIRECTIVES = Directives()

_FLAGS = {
    "no-store": "no_store",
    "public": "public",
    "must-revalidate": "must_revalidate",
    "proxy-revalidate": "proxy_revalidate",
    "must-understand": "must_understand",
    "no-transform": "no_transform",
    "immutable": "immutable",
    "only-if-cached": "only_if_cached",
}
_QUALIFIED = {"no-cache": "no_cache", "private": "private"}
_LIFETIMES = {"max-age": "max_age", "s-maxage": "s_maxage"}
_SECONDS = {
    **_LIFETIMES,
    "stale-while-revalidate": "stale_while_revalidate",
    "stale-if-error": "stale_if_error",
    "max-stale": "max_stale",
    "min-fresh": "min_fresh",
}
_RESPONSE_ONLY = frozenset({
    "s-maxage", "public", "private", "must-revalidate", "proxy-revalidate", "must-understand",
    "immutable", "stale-while-revalidate",
})  # fmt: skip
_REQUEST_ONLY = frozenset({"max-stale", "min-fresh", "only-if-cached"})


def response_directives(headers: Headers) -> Directives:
    """What Cache-Control says in an answer. Pragma has no meaning there (RFC 9111 §5.4)."""
    value = headers.get("cache-control")
    return NO_DIRECTIVES if value is None else _remembered(_of_response, value)


@lru_cache(maxsize=2048)
def _of_response(value: str) -> Directives:
    """Parsed once: an origin says the same few things over and over."""
    return _directives(_members(value, without=_REQUEST_ONLY), invalid_lifetime=0)


def request_directives(headers: Headers) -> Directives:
    """What Cache-Control says in a request; Pragma: no-cache counts where there is none (§5.4). What is too
    long to be looked into asks for what is most likely meant by it: not to be answered from the cache."""
    value = headers.get("cache-control")
    if value is not None:
        return _remembered(_of_request, value) if len(value) <= LONGEST else Directives(no_cache=True)
    pragma = headers.get("pragma")
    if pragma is not None and (len(pragma) > LONGEST or "no-cache" in split_list(pragma.lower())):
        return Directives(no_cache=True)
    return NO_DIRECTIVES


@lru_cache(maxsize=2048)
def _of_request(value: str) -> Directives:
    members = _members(value, without=_RESPONSE_ONLY)
    # A request's no-cache names no fields (§5.2.1.4): an argument says nothing.
    plain = ((name, None if name in _QUALIFIED else argument) for name, argument in members)
    return _directives(plain, invalid_lifetime=None)


def targeted_directives(headers: Headers) -> Directives | None:
    """What CDN-Cache-Control says (RFC 9213 §3.1), or None where it is absent, empty or invalid."""
    value = headers.get("cdn-cache-control")
    return None if value is None else _remembered(_of_targeted, value)


@lru_cache(maxsize=2048)
def _of_targeted(value: str) -> Directives | None:
    members = parse_dictionary(value)
    if not members or not all(_well_typed(name, item) for name, item in members.items()):
        return None
    texts = (
        (name, _argument(item))
        for name, item in members.items()
        if item is not False and name not in _REQUEST_ONLY
    )
    return _directives(texts, invalid_lifetime=0, targeted=True)


def effective_directives(headers: Headers) -> Directives:
    """The targeted field where there is a valid one, else Cache-Control (RFC 9213 §2.2)."""
    return targeted_directives(headers) or response_directives(headers)


def _remembered(parse: _lru_cache_wrapper[_T], value: str) -> _T:
    return parse(value) if len(value) <= REMEMBERED else parse.__wrapped__(value)


def _members(value: str, *, without: frozenset[str]) -> Iterable[tuple[str, str | None]]:
    for member in split_list(value):
        name, mark, argument = member.partition("=")
        bare = name.rstrip(OWS).lower()
        if bare in without:
            continue
        # White space around "=" is not in the grammar. The name still counts, since it may forbid
        # something; the argument is kept as it is, so that it cannot be read as a number.
        yield bare, (argument if name == name.rstrip(OWS) else " ") if mark else None


def _directives(
    members: Iterable[tuple[str, str | None]], *, invalid_lifetime: int | None, targeted: bool = False
) -> Directives:
    found: dict[str, object] = {}
    for name, argument in members:
        if name in _FLAGS:
            # "no-store=x" is still no-store: an argument that is not defined is ignored (§5.2.3).
            found[_FLAGS[name]] = True
        elif name in _QUALIFIED:
            _qualify(found, _QUALIFIED[name], argument)
        elif name in _SECONDS:
            default = invalid_lifetime if name in _LIFETIMES else None
            found.setdefault(_SECONDS[name], _seconds(name, argument, default))
    return Directives(**found, targeted=targeted)  # type: ignore[arg-type]


def _qualify(found: dict[str, object], attribute: str, argument: str | None) -> None:
    names = tuple(field.lower() for field in split_list(unquote(argument or "")))
    if not names:
        found[attribute] = True
        return
    listed = found.get(f"{attribute}_fields", ())
    found[f"{attribute}_fields"] = (*listed, *names)  # type: ignore[misc]


def _seconds(name: str, argument: str | None, default: int | None) -> int | None:
    if argument is None:
        # max-stale alone: however stale (§5.2.1.2).
        return MAX_DELTA if name == "max-stale" else default
    seconds = delta_seconds(argument)
    return default if seconds is None else seconds


def _well_typed(name: str, item: object) -> bool:
    """Whether a member has the type that RFC 9213 §2.1 maps the directive to. For what forbids, any
    value but false counts, so that a mistake in its type never makes an answer more cacheable."""
    return name not in _SECONDS or (isinstance(item, int) and not isinstance(item, bool))


def _argument(item: object) -> str | None:
    if item is True:
        return None
    if isinstance(item, tuple):
        return ",".join(str(inner) for inner in item)
    return str(item)
