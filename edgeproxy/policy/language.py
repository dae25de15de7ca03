"""Which stored answer speaks the language that a request wants most (RFC 9110 §12.5.4, RFC 9111 §4.1).

Rules of this file:

- Only where Accept-Language selects, and only once no variant is stored for what the request says literally.
- An answer fits where its Content-Language is one tag and the very one that the client weighs above all
  others. The origin has that language, as the answer shows, and could send nothing that the client likes
  better. A range ("de" for "de-AT"), a tie and "*" fit nothing: there the choice is the origin's.
- All other selecting fields must match as they always must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.policy.lists import LONGEST, split_list, weighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.policy.stored import Stored

LANGUAGE = "accept-language"


def wanted_language(accept_language: str | None) -> str | None:
    """The one language tag that Accept-Language weighs above all else, in lower case, or None."""
    if accept_language is None or len(accept_language) > LONGEST:
        return None
    members = weighted(accept_language)
    if not members or len(members) != len(split_list(accept_language)):
        return None
    ordered = sorted(members, key=lambda member: -member[1])
    tag, weight = ordered[0]
    tied = len(ordered) > 1 and ordered[1][1] == weight
    return None if tied or not weight or not tag.replace("-", "").isalnum() else tag


def wants(names: Sequence[str], values: Sequence[str | None]) -> str | None:
    """The language wanted by a request whose selecting fields ``names`` have these ``values``."""
    return next(
        (wanted_language(value) for name, value in zip(names, values, strict=True) if name == LANGUAGE), None
    )


def speaks(stored: Stored, names: Sequence[str], values: Sequence[str | None], language: str) -> bool:
    """Whether ``stored`` is in ``language``, and is selected by all of ``names`` but Accept-Language."""
    said = split_list(stored.headers.get("content-language") or "")
    if stored.part is not None or stored.vary != tuple(names) or [tag.lower() for tag in said] != [language]:
        return False
    return all(
        name == LANGUAGE or one == other
        for name, one, other in zip(names, stored.selecting, values, strict=True)
    )
