"""Which variant of an answer a request selects (RFC 9111 §4.1).

Rules of this file:

- Two requests select the same variant only if each selecting field means the same in both. Normalising
  goes as far as the field's own definition allows and no further: a field we know nothing of keeps all
  but the white space around its members.
- A field that is absent (None) is not the same as one that is empty, except where nothing is selected by it.
- The variant's name holds every part with its length, so that no two lists of values share one.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from edgeproxy.policy.coding import CODING_ALIASES
from edgeproxy.policy.lists import LONGEST, split_list, weighted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.policy.head import Headers, RequestHead
    from edgeproxy.policy.stored import Overrides

ABSENT = b"-"
OF_EACH_REQUEST = frozenset({"forwarded", "x-forwarded-for", "x-request-id"})
"""Fields that the origin gets from the edge, with another value for each client or request. What a client
sends of them does not reach the origin, so it selects nothing; what the edge sends fits no later request."""


def vary_names(headers: Headers) -> tuple[str, ...] | None:
    """The selecting fields' names: lower case, sorted, each once. None for ``*``, which nothing matches, and
    for fields that are OF_EACH_REQUEST."""
    value = headers.get("vary")
    if value is None:
        return ()
    names = {name.lower() for name in split_list(value)}
    return None if "*" in names or not names.isdisjoint(OF_EACH_REQUEST) else tuple(sorted(names))


def selecting_values(
    names: Sequence[str], request: RequestHead, overrides: Overrides
) -> tuple[str | None, ...]:
    """The request's values of the fields ``names``, normalised, in the same order."""
    return tuple(
        # The origin is told the scheme by the edge, whatever the client said.
        request.scheme if name == "x-forwarded-proto" else _selecting(name, request.headers, overrides)
        for name in names
    )


def _selecting(name: str, headers: Headers, overrides: Overrides) -> str | None:
    if name == "accept-encoding" and overrides.compression.enabled:
        # The origin is always asked for identity then, and the edge codes by itself: nothing is
        # selected by what the client accepts.
        return ""
    value = headers.get(name)
    listed = overrides.normalise.get(name)
    if listed:
        return best_listed(value, listed)
    if value is None or len(value) > LONGEST:
        return value  # what is too long to be looked into is equal to itself alone
    return _NORMALISERS.get(name, _members)(value)


def reduced_for_origin(headers: Headers, overrides: Overrides) -> Headers:
    """The request's fields with those that the rule normalises set to the value they are reduced to.

    What the origin is asked must say no more than what the variant is named by: else its answer to "fr" is
    stored as the answer to "en", to which the rule reduced it.
    """
    for name, listed in overrides.normalise.items():
        if listed:
            headers = headers.setting(name, best_listed(headers.get(name), listed))
    return headers


def best_listed(value: str | None, listed: Sequence[str]) -> str:
    """The value of ``listed`` that the field asks for most; the first where it asks for none of them.

    A language range matches longer tags that it is a prefix of, and is served by shorter ones ("en-GB" by
    "en", RFC 4647 §3.4). The most specific member speaks for a value; ties go to the order of ``listed``.
    """
    members = weighted(value) if value is not None and len(value) <= LONGEST else []
    best, best_weight = listed[0], 0.0
    for candidate in listed:
        matches = ((_specificity(candidate.lower(), wanted), weight) for wanted, weight in members)
        specificity, weight = max(matches, default=(0, 0.0))
        if specificity and weight > best_weight:
            best, best_weight = candidate, weight
    return best


def _specificity(candidate: str, member: str) -> int:
    wanted = member.partition(";")[0]
    if wanted == candidate:
        return 3
    if wanted.startswith(f"{candidate}-") or candidate.startswith(f"{wanted}-"):
        return 2
    return int(wanted in ("*", "*/*", f"{candidate.partition('/')[0]}/*"))


def _preferences(value: str) -> str:
    """Accept and Accept-Language: order says nothing, weights do (RFC 9110 §12.4.2)."""
    members = weighted(value)
    if len(members) != len(split_list(value)):
        # A weight that cannot be read: what the origin makes of it is not known.
        return _members(value)
    return ",".join(_with_weight(*m) for m in sorted(members, key=lambda m: (-m[1], m[0])))


def _codings(value: str) -> str:
    """Accept-Encoding: the set of acceptable codings, by their registered names (RFC 9110 §12.5.3)."""
    members = weighted(value)
    if len(members) != len(split_list(value)):
        return _members(value)
    weights = {CODING_ALIASES.get(name, name): weight for name, weight in members}
    # A refusal says something where the coding would be acceptable without it: identity always, the
    # others under "*". Naming identity says something only where "*" is refused.
    any_other = weights.get("*")
    said = {
        name: weight
        for name, weight in weights.items()
        if (weight > 0 and (name != "identity" or any_other == 0))
        or (weight == 0 and (any_other or name in ("identity", "*")))
    }
    return ",".join(_with_weight(name, 1.0 if said[name] else 0.0) for name in sorted(said))


def _with_weight(name: str, weight: float) -> str:
    return name if weight == 1 else f"{name};q={weight:g}"


def _members(value: str) -> str:
    return ",".join(split_list(value))


_NORMALISERS: dict[str, Callable[[str], str]] = {
    "accept": _preferences,
    "accept-language": _preferences,
    "accept-charset": _preferences,
    "accept-encoding": _codings,
}


def variant_id(names: Sequence[str], values: Sequence[str | None]) -> str:
    """A name for the variant: "" where nothing varies, else 32 hex digits."""
    if not names:
        return ""
    digest = blake2b(digest_size=16)
    for name, value in zip(names, values, strict=True):
        for part in (name.encode("latin-1"), None if value is None else value.encode("latin-1")):
            digest.update(ABSENT if part is None else b"%d:%b" % (len(part), part))
    return digest.hexdigest()
