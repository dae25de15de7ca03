"""WebSocket frames as they pass (RFC 6455 §5), looked at and not decoded.

Rules of this file:

- Pure: octets in, octets out. What goes out is what came in, whatever pieces it came in: payloads are never
  unmasked, joined or inflated, so extensions such as permessage-deflate pass untouched.
- A frame's header is checked before any of it is passed on, and a control frame is held until it is whole
  (125 octets at most). Between two calls the receiver therefore has whole frames, or a part of one data
  frame's payload: where ``between`` is true a frame of our own may follow.
- After a Close frame its sender has nothing more to say (§5.5.1): what follows is dropped. After a violation
  as well.
- Memory: one unfinished header or control frame, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_bytes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS, ABNORMAL, TOO_BIG, INTERNAL_ERROR = (
    1000, 1001, 1002, 1005, 1006, 1009, 1011,
)  # fmt: skip
"""Close codes (§7.4.1)."""

MOST_CONTROL = 125
"""Octets of a control frame's payload (§5.5)."""
_FIN, _RESERVED, _CONTROL, _MASKED = 0x80, 0x70, 0x08, 0x80
_KNOWN = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))


def frame(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    """A whole control frame of our own: what goes to an origin is masked (§5.3)."""
    if len(payload) > MOST_CONTROL:
        raise ValueError("a control frame's payload has 125 octets at most")
    head = bytes((_FIN | opcode, len(payload) | (_MASKED if masked else 0)))
    if not masked:
        return head + payload
    key = token_bytes(4)
    return head + key + _unmasked(payload, key)


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """``reason``: 123 octets of ASCII at most."""
    return frame(CLOSE, code.to_bytes(2) + reason.encode("ascii"), masked=masked)


def _unmasked(payload: bytes, key: bytes) -> bytes:
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))


@dataclass(frozen=True, slots=True)
class Violation:
    """Why the connection has to be failed (§7.1.7), with the close code that says so."""

    code: int
    detail: str


class Walker:
    """Walks what one side sends. ``masked``: a client's frames are, an origin's are not. ``extended``: an
    extension was agreed upon, which may use the reserved bits and opcodes. ``max_frame``, ``max_message``:
    octets of payload as sent, 0 for any number. ``swallow`` is asked for each whole control frame other than
    Close; what it says True to is not passed on."""

    __slots__ = (
        "_extended", "_fragmented", "_held", "_left", "_masked", "_max_frame", "_max_message", "_message",
        "_muted", "_muting", "_swallow", "close_code", "messages", "violation",
    )  # fmt: skip

    def __init__(
        self,
        *,
        masked: bool,
        extended: bool = False,
        max_frame: int = 0,
        max_message: int = 0,
        swallow: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        self._masked = masked
        self._extended = extended
        self._max_frame = max_frame
        self._max_message = max_message
        self._swallow = swallow
        self._held = b""
        self._left = 0
        self._message = 0
        self._fragmented = False
        self._muting = False
        self._muted = False
        self.messages = 0
        """Whose last frame has begun."""
        self.close_code: int | None = None
        """Of the Close frame, once it came; 1005 where it named none."""
        self.violation: Violation | None = None

    @property
    def between(self) -> bool:
        """What was passed on so far ends where a frame ends."""
        return self._muted or not self._left

    @property
    def ended(self) -> bool:
        """Nothing of what comes matters any more."""
        return self.violation is not None or self.close_code is not None

    @property
    def midway(self) -> bool:
        """A frame has begun to come and is not here to its end."""
        return bool(self._left or self._held)

    def mute(self) -> None:
        """Pass on the rest of the data frame under way and nothing after it; go on walking."""
        self._muting = True
        self._muted = not self._left

    def feed(self, data: bytes) -> bytes:
        """What of ``data`` may be passed on now."""
        if self.ended:
            return b""
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        begin = pos = 0  # [begin:pos] is to be passed on
        size = len(data)
        while pos < size:
            if self._left:
                step = min(self._left, size - pos)
                self._left -= step
                pos += step
                continue
            if self._muting and not self._muted:
                pieces.append(data[begin:pos])
                self._muted = True
            head = self._header(data, pos)
            if head is None:
                break
            end, opcode, length = head
            if not opcode & _CONTROL:
                pos, self._left = end, length
                continue
            if size < end + length:
                break
            if self._control(opcode, data, end, length):
                if not self._muted:
                    pieces.append(data[begin:pos])
                begin = end + length
            pos = end + length
            if self.ended:
                break
        if not self._muted:
            pieces.append(data[begin:pos])
        if not self.ended:
            self._held = data[pos:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _header(self, data: bytes, pos: int) -> tuple[int, int, int] | None:
        """End of the header at ``pos``, opcode, length. None: not whole yet, or a violation."""
        have = len(data) - pos
        if have < 2:
            return None
        first, second = data[pos], data[pos + 1]
        opcode, length = first & 0x0F, second & 0x7F
        wrong = self._wrong(first, second, opcode, length)
        if wrong:
            self._violated(PROTOCOL_ERROR, wrong)
            return None
        extra = 2 if length == 126 else 8 if length == 127 else 0
        end = 2 + extra + (4 if self._masked else 0)
        if have < end:
            return None
        if extra:
            least = length
            length = int.from_bytes(data[pos + 2 : pos + 2 + extra])
            if length < least or (extra == 8 and not 1 << 16 <= length < 1 << 63):
                self._violated(PROTOCOL_ERROR, "the length is not in its shortest form")
                return None
        if not opcode & _CONTROL and not self._begins(first, opcode, length):
            return None
        return pos + end, opcode, length

    def _wrong(self, first: int, second: int, opcode: int, length: int) -> str:
        """What the first two octets already show."""
        if bool(second & _MASKED) is not self._masked:
            return "the frame is not masked" if self._masked else "the frame is masked"
        if not self._extended and (first & _RESERVED or opcode not in _KNOWN):
            return "a reserved bit or opcode is used without an extension"
        if opcode & _CONTROL:
            if not first & _FIN:
                return "a control frame is fragmented"
            return "a control frame is too long" if length > MOST_CONTROL else ""
        if self._fragmented is not (opcode == CONTINUATION):
            return "a message began before the last one ended" if opcode else "there is nothing to continue"
        return ""

    def _begins(self, first: int, opcode: int, length: int) -> bool:
        """A data frame is here; False where it is too large."""
        self._message = length + (self._message if opcode == CONTINUATION else 0)
        if self._max_frame and length > self._max_frame:
            self._violated(TOO_BIG, f"a frame is longer than {self._max_frame} octets")
            return False
        if self._max_message and self._message > self._max_message:
            self._violated(TOO_BIG, f"a message is longer than {self._max_message} octets")
            return False
        self._fragmented = not first & _FIN
        if not self._fragmented:
            self.messages += 1
        return True

    def _control(self, opcode: int, data: bytes, start: int, length: int) -> bool:
        """A whole control frame is here. True: it is not to be passed on."""
        payload = data[start : start + length]
        if self._masked:
            payload = _unmasked(payload, data[start - 4 : start])
        if opcode != CLOSE:
            return self._swallow is not None and self._swallow(opcode, payload)
        if length == 1:
            self._violated(PROTOCOL_ERROR, "a Close frame has half a code")
            return True
        self.close_code = int.from_bytes(payload[:2]) if length else NO_STATUS
        return False

    def _violated(self, code: int, detail: str) -> None:
        self.violation = Violation(code, detail)
