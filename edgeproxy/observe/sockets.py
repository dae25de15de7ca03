"""What is counted of WebSockets: plain numbers, added to as frames pass.

Rules of this file: on the path of a frame there are additions to ints and nothing else. Labels are bounded:
codes are those of RFC 6455 by themselves, those of applications by their thousand.
"""

from __future__ import annotations


class SocketTally:
    """``*_in``: from clients; ``*_out``: to clients. Octets that passed, messages whose last frame began."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "closes",
        "messages_in",
        "messages_out",
        "open",
        "opened",
        "refused",
    )

    def __init__(self) -> None:
        self.open = 0
        self.opened = 0
        self.refused = 0
        """Handshakes that the edge refused by itself."""
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.closes: dict[tuple[str, str], int] = {}
        """By side and code."""

    def closed(self, side: str, code: int) -> None:
        key = (side, label(code))
        self.closes[key] = self.closes.get(key, 0) + 1


def label(code: int) -> str:
    """1001 -> "1001", 4321 -> "4xxx"."""
    if 1000 <= code <= 1015:
        return str(code)
    return f"{code // 1000}xxx" if 3000 <= code <= 4999 else "other"
