"""Every target for a moment, from its seeds, and with whatever hypothesis thinks of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import by_chance, main
from tests.fuzz.targets import TARGETS, Lane, cache_control, entry, key, requests_of, rules, seeds

PURE = [name for name in TARGETS if name != "lane"]


@pytest.mark.parametrize("name", PURE)
def test_from_its_seeds(name: str) -> None:
    target = TARGETS[name]()
    for data in seeds(name):
        target(data)
    assert by_chance(target, seeds(name), 0.2, seed=1)


@pytest.mark.parametrize("target", [entry, rules, cache_control, key])
def test_any_octets(target: object) -> None:
    @settings(max_examples=50, deadline=None, database=None)
    @given(st.binary(max_size=300))
    def run(data: bytes) -> None:
        target(data)  # type: ignore[operator]

    run()


def test_the_lane_and_the_handler_say_the_same() -> None:
    assert len(requests_of(b"\0\1\2\xff\xff\xff")) == 4
    lane = Lane()
    try:
        for data in seeds("lane"):
            lane(data)
    finally:
        lane.close()


def test_what_breaks_is_kept_and_told(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(data: bytes) -> None:
        if len(data) % 3 == 1:
            raise RuntimeError("a finding")

    monkeypatch.setitem(TARGETS, "key", lambda: breaks)
    monkeypatch.setattr("tests.fuzz.targets.seeds", lambda _: [b"abc"])
    assert main(["key", "--plain", "--minutes", "0.1", "--keep", str(tmp_path)]) == 1
    kept = capsys.readouterr().err.rpartition("broken: ")[2].strip()
    with pytest.raises(RuntimeError, match="a finding"):
        main(["key", "--input", kept])
