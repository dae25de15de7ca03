"""The servers that are compared and how each is set up: one worker, caching what the origin allows.

Rules of this file:

- One row a server. Settings are those that its manual gives for this job, keep-alive to the origin included;
  what one is given (a request id, a word that says hit or miss), the others are given where they can.
- Every start has a directory, ports and caches of its own. A server that is not installed is left out.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeproxy.settings import environment
from tests.bench.machine import ROOT
from tests.bench.probe import ask
from tests.bench.processes import Processes, Unusable, free_port, listening, wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.origin import Origin

TOKEN = "bench-admin-token"
MEBIBYTE = 1024**2


@dataclass(frozen=True, slots=True)
class Setup:
    """What a workload asks of a server. ``memory`` in MiB."""

    memory: int = 1024
    disk: bool = False
    """Hits are to come from the disk's cache, not from memory (edgeproxy: LMDB with L1 off)."""
    log: bool = False
    rules: Path | None = None
    flags: tuple[str, ...] = ()
    """More of edgeproxy's own."""


@dataclass(slots=True)
class Place:
    """Where one start of a server lives."""

    directory: Path
    port: int
    admin: int
    origin: int
    setup: Setup


@dataclass(slots=True)
class Running:
    name: str
    port: int
    admin: int
    process: subprocess.Popen[bytes]
    started: float = 0.0
    """Seconds from its start until it was ready."""
    setup: Setup = field(default_factory=Setup)

    @property
    def pid(self) -> int:
        return self.process.pid

    def operate(self, path: str, method: str = "GET", body: bytes = b"") -> bytes:
        """Ask edgeproxy's admin port. Raises Unusable."""
        headers = {"Host": f"127.0.0.1:{self.admin}", "Authorization": f"Bearer {TOKEN}"}
        answer = ask(self.admin, path, headers, method, body)
        if answer.status != 200:
            raise Unusable(f"{method} {path} is answered {answer.status}: {answer.body[:200]!r}")
        return answer.body


def _edgeproxy(place: Place) -> list[str]:
    setup = place.setup
    store = f"lmdb:{place.directory}/store" if setup.disk else "memory:"
    flags = {
        "--origin": f"http://127.0.0.1:{place.origin}",
        "--listen": f"127.0.0.1:{place.port}",
        "--admin": f"127.0.0.1:{place.admin}",
        "--rules": str(setup.rules or "none"),
        "--store": store,
        "--memory": "0" if setup.disk else f"{setup.memory}MiB",
        "--cache-dir": str(place.directory),
        "--workers": "1",
        "--access-log": str(place.directory / "access.log") if setup.log else "off",
    }
    given = [word for pair in flags.items() for word in pair]
    return [sys.executable, "-m", "edgeproxy", "serve", *given, *setup.flags]


def _nginx(place: Place) -> list[str]:
    d, setup = place.directory, place.setup
    log = f"access_log {d}/access.log combined buffer=64k flush=1s" if setup.log else "access_log off"
    (d / "nginx.conf").write_text(f"""
worker_processes 1; pid {d}/pid; error_log {d}/err; daemon off; worker_rlimit_nofile 65536;
events {{ worker_connections 20000; }}
http {{
  {log}; keepalive_requests 100000000; keepalive_timeout 600s; sendfile on; tcp_nopush on;
  open_file_cache max=4000;
  client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/w;
  scgi_temp_path {d}/s;
  proxy_cache_path {d}/cache levels=1:2 keys_zone=c:256m max_size=8000m inactive=600m use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{place.origin}; keepalive 128; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{place.port} backlog=4096;
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache c; proxy_cache_lock on;
      add_header X-Cache-Status $upstream_cache_status; add_header X-Request-ID $request_id;
    }}
  }}
}}
""")
    return ["nginx", "-e", f"{d}/err", "-c", f"{d}/nginx.conf"]


def _haproxy(place: Place) -> list[str]:
    d, setup = place.directory, place.setup
    (d / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 10m
  timeout server 1m
cache c
  total-max-size {min(setup.memory, 4095)}
  max-object-size 1100000
  max-age 36000
  process-vary on
frontend in
  bind 127.0.0.1:{place.port}
  unique-id-format %{{+X}}o%rt-%Ts
  http-response set-header X-Request-ID %[unique-id]
  filter cache c
  http-request cache-use c
  http-response cache-store c
  default_backend out
backend out
  http-reuse always
  server origin 127.0.0.1:{place.origin}
""")
    return ["haproxy", "-db", "-f", f"{d}/haproxy.cfg"]


def _varnish(place: Place) -> list[str]:
    d, setup = place.directory, place.setup
    (d / "default.vcl").write_text(f"""vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{place.origin}"; }}
sub vcl_recv {{ unset req.http.Cookie; }}
sub vcl_deliver {{
  set resp.http.X-Cache-Status = "MISS";
  if (obj.hits > 0) {{ set resp.http.X-Cache-Status = "HIT"; }}
  set resp.http.X-Request-ID = req.xid;
}}
""")
    # Its own gzip support would turn "gzip, br" into "gzip".
    return [
        "varnishd", "-F", "-n", f"{d}/work", "-a", f"127.0.0.1:{place.port}", "-f", f"{d}/default.vcl",
        "-s", f"malloc,{setup.memory}m", "-p", "thread_pools=1", "-p", "thread_pool_min=100",
        "-p", "http_gzip_support=off",
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Server:
    """``program`` is what must be installed; ``argv`` writes the configuration and gives the command."""

    program: str
    package: str
    argv: Callable[[Place], list[str]]


SERVERS = {
    "edgeproxy": Server("", "", _edgeproxy),
    "nginx": Server("nginx", "nginx", _nginx),
    "haproxy": Server("haproxy", "haproxy", _haproxy),
    "varnish": Server("varnishd", "varnish", _varnish),
}


def installed(names: list[str], say: Callable[[str], None]) -> list[str]:
    """Those of ``names`` that can be run; a line for each that cannot."""
    found = []
    for name in names:
        server = SERVERS[name]
        if server.program and shutil.which(server.program) is None:
            say(f"{name} is left out: no {server.program} (Debian: apt install {server.package})")
        else:
            found.append(name)
    return found


_starts = 0


def start(processes: Processes, name: str, origin: Origin, setup: Setup) -> Running:
    """Start it on core 0 and wait until it is ready. Raises Unusable."""
    global _starts  # noqa: PLW0603  # a number for directories, nothing else
    _starts += 1
    label = f"{name}-{_starts}"
    directory = processes.directory / label
    directory.mkdir()
    directory.chmod(0o777)  # nginx and Varnish write as users of their own
    place = Place(directory, free_port(), free_port(), origin.port, setup)
    argv = SERVERS[name].argv(place)
    own = environment() | {"PYTHONPATH": str(ROOT), "EDGEPROXY_ADMIN_TOKEN": TOKEN}
    process = processes.start(argv, core=0, name=label, environment=own)
    ready = edge_ready(place.admin) if name == "edgeproxy" else listening(place.port)
    try:
        seconds = wait_for(ready, process, name, 60)
    except Unusable as error:
        raise Unusable(f"{error}: {processes.said(label)}") from None
    return Running(name, place.port, place.admin, process, seconds, setup)


def edge_ready(admin: int) -> Callable[[], bool]:
    return lambda: ask(admin, "/readyz").status == 200
