"""The origin of all servers: nginx with a few files, which counts the requests that reach it.

Rules of this file:

- The count is what tells a hit from a miss, the same way for every server: a workload of hits that reaches
  the origin is not one, whatever the headers say.
- Bodies are JSON of fixed sizes, made from a fixed seed. ``/u/...NN`` is any number of URLs over a hundred
  bodies of 1 KB (``/medium/...NN`` of 4 KB), so that neither disk nor directory decides anything.
- Coded answers for those that cannot code themselves (``/coded``): made here, once, at the quality that
  edgeproxy's own stored codings have, and chosen by Accept-Encoding with Vary.
"""

from __future__ import annotations

import json
import random
import shutil
import zlib
from typing import TYPE_CHECKING

import brotli

from tests.bench.probe import ask
from tests.bench.processes import Processes, Unusable, free_port, listening, wait_for

if TYPE_CHECKING:
    from pathlib import Path

POOL = 100
"""Different bodies under /u/."""
SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1m": 1_000_000}

_CONF = """
worker_processes 1; pid {d}/origin.pid; error_log {d}/origin.err; daemon off;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; open_file_cache max=4000; etag on;
  default_type application/json;
  client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/w; scgi_temp_path {d}/s;
  map $http_accept_encoding $suffix {{ default ""; ~br ".br"; ~gzip ".gz"; }}
  map $suffix $coding {{ default ""; .gz gzip; .br br; }}
  server {{
    listen 127.0.0.1:{port}; root {d}/www;
    add_header Cache-Control "public, max-age=36000";
    location = /requests {{ stub_status; }}
    location ~ "^/u/.*([0-9][0-9])$" {{ try_files /pool/$1 =404; add_header Cache-Control "public, max-age=36000"; }}
    location ~ "^/medium/.*([0-9][0-9])$" {{ try_files /medium/$1 =404; add_header Cache-Control "public, max-age=36000"; }}
    location ~ "^/big/" {{ try_files /1m =404; add_header Cache-Control "public, max-age=36000"; }}
    location /nostore/ {{ add_header Cache-Control "no-store"; }}
    location = /coded {{
      try_files /coded$suffix =404;
      add_header Cache-Control "public, max-age=36000"; add_header Content-Encoding $coding; add_header Vary Accept-Encoding;
    }}
  }}
}}
"""  # noqa: E501


def payload(size: int, rnd: random.Random) -> bytes:
    """A JSON document of about ``size`` octets, with the redundancy of a real one."""
    rows: list[dict[str, object]] = []
    length = 14
    while length < size - 60:
        row: dict[str, object] = {
            "id": rnd.randrange(10**6),
            "title": f"pitch {rnd.randrange(1000)}",
            "genre": rnd.choice(["drama", "comedy", "horror"]),
        }
        rows.append(row)
        length += len(json.dumps(row)) + 2
    return json.dumps({"pitches": rows}).encode()


class Origin:
    """Running until its ``processes`` end. ``url`` is without a path."""

    def __init__(self, processes: Processes) -> None:
        if shutil.which("nginx") is None:
            raise Unusable("nginx is not installed, and it is the origin too")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        directory = processes.directory / "origin"
        directory.mkdir(mode=0o755)
        _write_files(directory / "www")
        conf = directory / "origin.conf"
        conf.write_text(_CONF.format(d=directory, port=self.port))
        process = processes.start(
            ["nginx", "-e", f"{directory}/origin.err", "-c", str(conf)], core=1, name="origin"
        )
        wait_for(listening(self.port), process, "the origin", 10)

    def requests(self) -> int:
        """How many have reached the origin so far, questions of this kind left out of account."""
        answer = ask(self.port, "/requests")
        # The third line: accepted connections, handled ones, requests.
        total = int(answer.body.split(b"\n")[2].split()[2])
        self._asked = getattr(self, "_asked", 0) + 1
        return total - self._asked


def _write_files(www: Path) -> None:
    rnd = random.Random(1)
    for directory in (www, www / "pool", www / "medium", www / "nostore"):
        directory.mkdir()
    for name, size in SIZES.items():
        (www / name).write_bytes(payload(size, rnd))
    (www / "nostore" / "1k").write_bytes(payload(1_000, rnd))
    for number in range(POOL):
        (www / "pool" / f"{number:02}").write_bytes(payload(1_000, rnd))
        (www / "medium" / f"{number:02}").write_bytes(payload(4_000, rnd))
    body = (www / "10k").read_bytes()
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    (www / "coded").write_bytes(body)
    (www / "coded.gz").write_bytes(packer.compress(body) + packer.flush())
    (www / "coded.br").write_bytes(brotli.compress(body, quality=5))
