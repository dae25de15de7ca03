"""What is read back is what was written, and nothing else is believed."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.warm.again import Again
from edgeproxy.warm.wanted import HALF_LIFE, ROOM, Wanted
from edgeproxy.warm.wanted_file import LARGEST, OLDEST, WantedFiles, decode, encode, merged

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_700_000_000.0
ONE = Again("http", "api.example", "/a?b=1", (("accept-language", "de"),))

TARGETS = st.text(st.characters(min_codepoint=0x24, max_codepoint=0x7E), max_size=40).map(lambda t: f"/{t}")
AGAINS = st.builds(
    Again,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["a.example", "A.example:80", "[::1]:8080"]),
    TARGETS,
    st.sampled_from([(), (("x-tenant", "blue"),), (("accept-language", "de"), ("x-a", "\xe9"))]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(st.lists(st.tuples(AGAINS, st.floats(0.01, 1e9)), max_size=20), st.floats(0, OLDEST))
def test_it_comes_back_faded(wanted: list[tuple[Again, float]], passed: float) -> None:
    written = [Wanted(again, "rule", weight) for again, weight in wanted]
    read = decode(encode(written, NOW), NOW + passed)
    assert [w.again for w in read] == [w.again for w in written]
    for before, after in zip(written, read, strict=True):
        assert after.weight == pytest.approx(before.weight * 2 ** (-passed / HALF_LIFE), abs=1e-3, rel=1e-3)


@given(st.binary(max_size=300))
def test_octets_that_are_no_file_are_refused(octets: bytes) -> None:
    with pytest.raises(ValueError):
        decode(octets, NOW)


@given(JSON, JSON, JSON)
def test_json_that_is_no_file_harms_nobody(wanted: Any, fields: Any, target: Any) -> None:
    record = {"scheme": "http", "host": "h", "target": target, "rule": "r", "weight": 1, "fields": fields}
    for body in ({"version": 1, "saved_at": NOW, "wanted": wanted},
                 {"version": 1, "saved_at": NOW, "wanted": [record]}):  # fmt: skip
        try:
            found = decode(json.dumps(body).encode(), NOW)
        except ValueError:
            continue
        assert all(w.again.sound and w.weight > 0 for w in found)


@pytest.mark.parametrize(
    "change",
    [
        {"fields": [["cookie", "session=1"]]},
        {"fields": [["authorization", "Bearer x"]]},
        {"fields": [["x-api-key", "k"]]},
        {"fields": [["host", "other"]]},
        {"fields": [["x", "a\r\nCookie: b"]]},
        {"fields": [["X-Upper", "a"]]},
        {"fields": [["x", "\u0416"]]},
        {"target": "/a b"},
        {"target": "/a\r\nX: y"},
        {"target": "//x#y"},
        {"target": "http://evil/"},
        {"target": "/" + "a" * 3000},
        {"host": "h/../x"},
        {"host": ""},
        {"host": "user@h"},
        {"scheme": "file"},
        {"weight": 0},
        {"weight": -1},
        {"weight": 1e300},
        {"rule": "r" * 65},
    ],
)
def test_a_record_that_we_would_not_have_written_is_left_out(change: dict[str, Any]) -> None:
    told = json.loads(encode([Wanted(ONE, "r", 5.0), Wanted(ONE, "r", 4.0)], NOW))
    told["wanted"][0].update(change)
    assert [w.weight for w in decode(json.dumps(told).encode(), NOW)] == [4.0]


def test_other_versions_and_sizes_are_refused() -> None:
    told = json.loads(encode([Wanted(ONE, "r", 5.0)], NOW))
    for change in ({"version": 2}, {"extra": 1}):
        with pytest.raises(ValueError):
            decode(json.dumps({**told, **change}).encode(), NOW)
    with pytest.raises(ValueError, match="larger"):
        decode(b" " * (LARGEST + 1), NOW)
    many = [Wanted(Again("http", "h", f"/{i}"), "r", 1.0) for i in range(ROOM + 50)]
    assert len(decode(encode(many, NOW), NOW)) == ROOM


def test_an_old_file_says_nothing_and_one_from_the_future_is_new() -> None:
    octets = encode([Wanted(ONE, "r", 8.0)], NOW)
    assert decode(octets, NOW + OLDEST + 1) == []
    assert decode(octets, NOW - 5000)[0].weight == 8.0


def test_files_of_workers_are_told_apart_and_added_up(tmp_path: Path) -> None:
    first, second = (WantedFiles(tmp_path / "new", "most-wanted-x", slot) for slot in (0, 1))
    first.save(encode([Wanted(ONE, "r", 2.0)], NOW))
    second.save(encode([Wanted(ONE, "r", 3.0)], NOW))
    other_site = WantedFiles(tmp_path / "new", "most-wanted-y", 0)
    other_site.save(encode([Wanted(ONE, "r", 100.0)], NOW))
    total = merged([first.load_own(NOW), *first.load_others(NOW)])
    assert [(w.again, w.weight) for w in total] == [(ONE, 5.0)]
    assert stat.S_IMODE(first.own.stat().st_mode) == 0o600
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "most-wanted-x.0.json", "most-wanted-x.1.json", "most-wanted-y.0.json",
    ]  # fmt: skip


def test_a_broken_file_is_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = WantedFiles(tmp_path, "w", 0)
    assert files.load_own(NOW) == []
    assert not caplog.records
    files.own.write_bytes(b"{half")
    assert files.load_own(NOW) == []
    assert "not known" in caplog.text


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    files = WantedFiles(tmp_path, "w", 0)
    files.own.mkdir()
    with pytest.raises(OSError):
        files.save(b"x")
    assert os.listdir(tmp_path) == ["w.0.json"]  # noqa: PTH208
