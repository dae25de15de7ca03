from __future__ import annotations

from dataclasses import replace

import pytest

from edgeproxy.policy.head import Headers
from edgeproxy.policy.language import speaks, wanted_language, wants
from edgeproxy.policy.stored import Freshness, Part, Stored

NAMES = ("accept-language", "x-tenant")


@pytest.mark.parametrize(
    ("value", "language"),
    [
        ("de", "de"),
        ("fr;q=0.5, de;q=1.0", "de"),
        ("DE-at, en;q=0.9", "de-at"),
        ("en, de", None),  # a tie: the origin's to choose
        ("*", None),
        ("*, en;q=0.1", None),
        ("de;q=0", None),
        ("de;q=x, en;q=0.1", None),
        ("", None),
        (None, None),
    ],
)
def test_the_language_wanted_most(value: str | None, language: str | None) -> None:
    assert wanted_language(value) == language
    assert wants(NAMES, (value, "a")) == language


def test_without_accept_language_none_is_wanted() -> None:
    assert wants(("cookie",), ("de",)) is None


@pytest.mark.parametrize(
    ("said", "names", "values", "fits"),
    [
        ("de", NAMES, ("de", "a"), True),
        ("De", NAMES, ("de", "a"), True),
        ("de", NAMES, ("de", "b"), False),
        ("de", NAMES, ("de", None), False),
        ("de", ("accept-language",), ("de",), False),
        ("de-AT", NAMES, ("de", "a"), False),
        ("de, en", NAMES, ("de", "a"), False),
        (None, NAMES, ("de", "a"), False),
    ],
)
def test_what_speaks_it(
    said: str | None, names: tuple[str, ...], values: tuple[str | None, ...], fits: bool
) -> None:
    fields = Headers.of([("Content-Language", said)] if said else [])
    stored = Stored(200, "OK", fields, Freshness(0, 0, 60), 0, NAMES, ("de,en", "a"))
    assert speaks(stored, names, values, "de") is fits


def test_a_part_is_lent_to_nobody() -> None:
    """Another variant in the same language may be whole."""
    fields = Headers.of([("Content-Language", "de")])
    whole = Stored(200, "OK", fields, Freshness(0, 0, 60), 4, NAMES, ("de,en", "a"))
    assert speaks(whole, NAMES, ("de", "a"), "de")
    assert not speaks(replace(whole, status=206, part=Part(0, 4, 9)), NAMES, ("de", "a"), "de")
