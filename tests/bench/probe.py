"""Single requests over a plain socket: what a server really answers, before it is timed.

Rules of this file: nothing is decoded or repaired; an answer without Content-Length or with another status
than a final one is not what the servers here give, and is an error.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

HOST = "bench.example"


@dataclass(frozen=True, slots=True)
class Answer:
    """``octets`` is its length on the wire, head and body (chunks' own lines left out)."""

    status: int
    headers: dict[str, str]
    body: bytes
    octets: int = field(default=0)


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    def ask(self, request: bytes) -> Answer:
        self._socket.sendall(request)
        while b"\r\n\r\n" not in self._left:
            self._more()
        head, _, rest = self._left.partition(b"\r\n\r\n")
        self._left = rest
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        if headers.get("transfer-encoding") == "chunked":
            body = self._chunks()
        else:
            body = self._take(0 if status in {204, 304} else int(headers["content-length"]))
        return Answer(status, headers, body, len(head) + 4 + len(body))

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while True:
            while b"\r\n" not in self._left:
                self._more()
            size, _, self._left = self._left.partition(b"\r\n")
            data = self._take(int(size, 16) + 2)[:-2]
            if not data:
                return b"".join(parts)
            parts.append(data)

    def _take(self, length: int) -> bytes:
        while len(self._left) < length:
            self._more()
        taken, self._left = self._left[:length], self._left[length:]
        return taken

    def _more(self) -> None:
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the connection ended before the answer did")
        self._left += data

    def close(self) -> None:
        self._socket.close()


def request(
    path: str, headers: dict[str, str] | None = None, method: str = "GET", body: bytes = b""
) -> bytes:
    fields = {"Host": HOST, **(headers or {})}
    if body:
        fields["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def ask(
    port: int, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: bytes = b""
) -> Answer:
    connection = Connection(port)
    try:
        return connection.ask(request(path, headers, method, body))
    finally:
        connection.close()
