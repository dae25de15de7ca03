"""Words of rule files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.rules import values

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30), ("15m", 900), ("1h", 3600), ("7d", 604800), ("1h30m", 5400), ("90", 90), ("0", 0),
        ("250ms", 0.25), ("1.5", 1.5), ("1w", 604800), ("1y", 31536000),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert values.duration(text) == seconds


@given(st.integers(0, 2**31))
def test_a_shown_duration_reads_back(seconds: int) -> None:
    assert values.duration(values.show_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("1MiB", 1048576),
        ("512KB", 512000),
        ("100", 100),
        ("8m", 8 << 20),
        ("1.5KiB", 1536),
        ("2 GiB", 2 << 30),
    ],
)
def test_sizes(text: str, octets: int) -> None:
    assert values.size(text) == octets


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (values.duration, "5x"), (values.duration, "-1s"), (values.duration, "1m1"), (values.duration,
            "\u0661s"),
        (values.duration, "99999999999"), (values.duration, ""), (values.duration, "nan"),
            (values.duration, "1e9"),
        (values.size, "1XB"), (values.size, "-1"), (values.size, "9999TiB"),
        (values.flag, "maybe"), (values.rule_name, "a b"), (values.rule_name, "none"), (values.rule_name,
            "x" * 65),
        (values.field_name, "x y"), (values.field_name, ""), (values.field_value, "a\r\nb"),
            (values.field_value, "€"),
        (values.changeable_field, "Content-Length"), (values.changeable_field, "transfer-encoding"),
        (values.cache_control, "max-age=1m"), (values.cache_control, "a b"), (values.cache_control, ""),
        (values.method, "G T"), (values.unsafe_method, "GET"), (values.host, "a:80"), (values.host, "*"),
        (values.parameter_pattern, "a*b"), (values.coding, "zstd"), (values.media_type, "text"),
        (values.status_or_class, "1xx"), (values.status_or_class, "99"), (values.template, "a b"),
        (values.template, "a:{"), (values.target_template, "x"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError):
        read(text)


def test_a_near_word_is_named() -> None:
    with pytest.raises(ValueError, match='did you mean "set_cookie"'):
        values.words(("set_cookie", "private"), "set_cooky")


@given(st.text(max_size=20))
def test_readers_give_a_value_or_a_value_error(text: str) -> None:
    for read in (
        values.duration,
        values.size,
        values.field_value,
        values.cache_control,
        values.host,
        values.template,
    ):
        try:
            read(text)
        except ValueError as error:
            assert str(error)  # noqa: PT017
