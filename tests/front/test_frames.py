"""Frames as they pass: octet by octet what came, whatever pieces they come in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.front.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Walker,
    close_frame,
    frame,
)
from tests.support.websocket import MASK, made


@dataclass(frozen=True)
class Message:
    parts: tuple[bytes, ...]
    between: tuple[tuple[int, bytes], ...]
    """Control frames between its fragments."""

    def octets(self, masked: bool) -> bytes:
        octets = b""
        for i, part in enumerate(self.parts):
            opcode = BINARY if i == 0 else CONTINUATION
            octets += made(opcode, part, fin=i == len(self.parts) - 1, masked=masked)
            if i < len(self.between):
                octets += made(self.between[i][0], self.between[i][1], masked=masked)
        return octets


CONTROLS = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
PARTS = st.one_of(st.binary(max_size=300), st.integers(65530, 65550).map(lambda n: b"x" * n))
MESSAGES = st.builds(
    Message,
    st.lists(PARTS, min_size=1, max_size=3).map(tuple),
    st.lists(CONTROLS, max_size=2).map(tuple),
)
CUTS = st.lists(st.floats(0, 1), max_size=12)


def cut(octets: bytes, cuts: list[float]) -> list[bytes]:
    at = sorted({int(c * len(octets)) for c in cuts} | {0, len(octets)})
    return [octets[a:b] for a, b in pairwise(at)]


@given(st.lists(MESSAGES, max_size=4), CUTS, st.booleans(), st.booleans())
def test_any_split_gives_the_same(
    messages: list[Message],
    cuts: list[float],
    masked: bool,
    closes: bool,
) -> None:
    """Nothing is lost, added or moved; messages are counted; controls are seen; nothing follows Close."""
    octets = b"".join(m.octets(masked) for m in messages)
    if closes:
        octets += made(CLOSE, (4001).to_bytes(2) + b"bye", masked=masked)
    expected = [c for m in messages for c in m.between[: len(m.parts)]]
    for pieces in (cut(octets + b"\xffjunk" * closes, cuts), [octets]):
        seen: list[tuple[int, bytes]] = []

        def see(opcode: int, payload: bytes, seen: list[tuple[int, bytes]] = seen) -> bool:
            seen.append((opcode, payload))
            return False

        walker = Walker(masked=masked, swallow=see)
        assert b"".join([walker.feed(piece) for piece in pieces]) == octets
        assert walker.violation is None
        assert walker.messages == len(messages)
        assert seen == expected
        assert walker.close_code == (4001 if closes else None)
        assert walker.between
        assert not walker.midway


@given(st.lists(MESSAGES, min_size=1, max_size=4), CUTS)
def test_a_frame_of_ours_fits_wherever_it_says_between(messages: list[Message], cuts: list[float]) -> None:
    """Put a ping in at each such place: the result walks well, and without the pings it is what came."""
    octets = b"".join(m.octets(masked=False) for m in messages)
    ping, taken = frame(PING, b"ours", masked=False), 0
    walker, woven = Walker(masked=False), b""
    for piece in cut(octets, cuts):
        woven += walker.feed(piece)
        if walker.between:
            woven += ping
            taken += 1
    again = Walker(masked=False, swallow=lambda opcode, payload: opcode == PING and payload == b"ours")
    unwoven = again.feed(woven)
    theirs = sum(c == (PING, b"ours") for m in messages for c in m.between)
    assert again.violation is None
    assert theirs or unwoven == octets
    assert walker.messages == again.messages


@given(st.binary(max_size=400), CUTS, st.booleans())
def test_whatever_comes_the_pieces_do_not_matter(octets: bytes, cuts: list[float], masked: bool) -> None:
    whole, split = Walker(masked=masked), Walker(masked=masked)
    out = whole.feed(octets)
    assert b"".join([split.feed(p) for p in cut(octets, cuts)]) == out
    assert octets.startswith(out)
    assert (whole.violation, whole.close_code, whole.messages) == (
        split.violation, split.close_code, split.messages,
    )  # fmt: skip


LONG_PING = bytes([0x80 | PING, 0x80 | 126, 0, 126]) + MASK + b"x" * 126

VIOLATIONS = {
    "not masked": made(TEXT, b"a", masked=False),
    "a reserved bit": made(TEXT, b"a", reserved=0x40),
    "a reserved opcode": made(0x3, b"a"),
    "a reserved control opcode": made(0xB, b"a"),
    "a fragmented ping": made(PING, b"a", fin=False),
    "a long ping": LONG_PING,
    "nothing to continue": made(CONTINUATION, b"a"),
    "a message within a message": made(TEXT, b"a", fin=False) + made(TEXT, b"b"),
    "a length too wide for 125": made(TEXT, b"a" * 125, wide=2),
    "a length too wide for 65535": made(TEXT, b"a" * 65535, wide=8),
    "a length with its highest bit": bytes([0x82, 0x80 | 127]) + b"\xff" * 8 + MASK,
    "half a close code": made(CLOSE, b"\x03"),
}


@pytest.mark.parametrize("case", VIOLATIONS)
def test_violations(case: str) -> None:
    """What came before is passed on, the offending frame is not, nor anything after it."""
    good, bad = made(TEXT, b"good"), VIOLATIONS[case]
    first = made(TEXT, b"a", fin=False) if case == "a message within a message" else b""
    walker = Walker(masked=True)
    assert walker.feed(good + bad + good) == good + first
    assert walker.violation is not None
    assert walker.violation.code == PROTOCOL_ERROR
    assert walker.feed(good) == b""


def test_a_masked_frame_of_an_origin() -> None:
    walker = Walker(masked=False)
    assert walker.feed(made(TEXT, b"a")) == b""
    assert walker.violation is not None


def test_an_extension_may_use_what_is_reserved() -> None:
    walker = Walker(masked=True, extended=True)
    octets = made(TEXT, b"a", reserved=0x40, fin=False) + made(CONTINUATION, b"b")
    assert walker.feed(octets) == octets
    assert walker.violation is None


@pytest.mark.parametrize(
    "octets",
    [
        made(BINARY, b"x" * 11),
        made(BINARY, b"x" * 6, fin=False) + made(CONTINUATION, b"x" * 5),
    ],
)
def test_too_large_a_message(octets: bytes) -> None:
    walker = Walker(masked=True, max_message=10)
    walker.feed(made(BINARY, b"x" * 10))
    walker.feed(octets)
    assert walker.violation is not None
    assert walker.violation.code == TOO_BIG


def test_too_large_a_frame_is_refused_by_its_header() -> None:
    walker = Walker(masked=True, max_frame=1000)
    assert walker.feed(made(BINARY, b"x" * 1001)[:8]) == b""
    assert walker.violation is not None
    assert walker.violation.code == TOO_BIG


def test_swallowed_frames_are_gone_and_no_other() -> None:
    walker = Walker(masked=True, swallow=lambda opcode, payload: (opcode, payload) == (PONG, b"ours"))
    ours, theirs, text = made(PONG, b"ours"), made(PONG, b"theirs"), made(TEXT, b"a" * 200)
    assert walker.feed(text + ours + theirs + ours + text[:9]) == text + theirs + text[:9]
    assert walker.feed(text[9:] + ours) == text[9:]


def test_muted_between_frames_and_within_one() -> None:
    text = made(TEXT, b"a" * 200)
    walker = Walker(masked=True)
    walker.feed(text)
    walker.mute()
    assert walker.feed(text + made(CLOSE)) == b""
    assert walker.close_code == NO_STATUS
    walker = Walker(masked=True)
    walker.feed(text[:50])
    walker.mute()
    assert not walker.between
    assert walker.feed(text[50:] + text) == text[50:]
    assert walker.between
    assert walker.feed(made(CLOSE, (1000).to_bytes(2))) == b""
    assert walker.close_code == 1000


@pytest.mark.parametrize("masked", [True, False])
def test_our_own_frames_walk_well(masked: bool) -> None:
    seen: list[tuple[int, bytes]] = []

    def see(opcode: int, payload: bytes) -> bool:
        seen.append((opcode, payload))
        return False

    walker = Walker(masked=masked, swallow=see)
    octets = frame(PING, b"hello", masked=masked) + close_frame(1001, "bye", masked=masked)
    assert walker.feed(octets) == octets
    assert (seen, walker.close_code) == ([(PING, b"hello")], 1001)
    with pytest.raises(ValueError, match="125"):
        frame(PING, b"x" * 126, masked=masked)
