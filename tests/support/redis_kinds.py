"""A Redis Cluster, a primary behind sentinels, and a Redis that speaks TLS alone: all from the one binary.

Rules of this file:

- As servers.py has it: loopback, free ports, no persistence, ended with their context; ``None`` where there
  is no binary.
- What has to come about between the servers is waited for by asking them.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.support.servers import Server, free_port, redis_binary, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = "s3cret/with#odd?octets@"
USER = "edge"
SLOTS = 16384
SERVICE = "edge"
_PLAIN = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]


@dataclass(frozen=True)
class Cluster:
    """``servers`` in the order of the slots they began with; then the replicas, if any."""

    servers: list[Server]
    primaries: int

    @property
    def url(self) -> str:
        hosts = ",".join(f"{server.host}:{server.port}" for server in self.servers)
        return f"redis+cluster://{hosts}"

    def holder(self, key: str) -> Server:
        """Who held the key's slot in the beginning."""
        return self.servers[key_slot(key.encode()) * self.primaries // SLOTS]

    def flush(self) -> None:
        for server in self.servers[: self.primaries]:
            with Redis(port=server.port) as client:
                client.flushall()


@contextlib.contextmanager
def redis_cluster(directory: Path, primaries: int = 3, replicas: int = 0) -> Iterator[Cluster | None]:
    """``replicas``: so many of the primaries, from the first, have one each."""
    binary = redis_binary()
    if binary is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                _node(binary, directory / f"node-{number}", patience=600 if replicas else 5000)
            )
            for number in range(primaries + replicas)
        ]
        clients = [stack.enter_context(Redis(port=server.port)) for server in servers]
        for number, client in enumerate(clients):
            if number < primaries:
                bounds = [-(-SLOTS * bound // primaries) for bound in (number, number + 1)]
                client.execute_command("CLUSTER", "ADDSLOTS", *range(*bounds))
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        ports = [server.port for server in servers]

        def met() -> bool:
            """A handshake that a busy machine was too slow for is forgotten: begun again."""
            if all(_known(client) == len(clients) for client in clients):
                return True
            known = str(clients[0].execute_command("CLUSTER NODES"))
            for port in ports[1:]:
                if f":{port}@" not in known:
                    clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
            return False

        _until(met)
        for number, client in enumerate(clients[primaries:]):
            client.execute_command("CLUSTER", "REPLICATE", clients[number].execute_command("CLUSTER MYID"))
        _until(lambda: all(b"cluster_state:ok" in _told(client, "CLUSTER INFO") for client in clients))
        _until(lambda: all("up" in str(_link(client)) for client in clients[primaries:]))
        yield Cluster(servers, primaries)


@contextlib.contextmanager
def _node(binary: str, directory: Path, patience: int) -> Iterator[Server]:
    """``patience``: milliseconds after which one that says nothing is taken for dead."""
    directory.mkdir()
    port = _cluster_port()
    command = [binary, "--port", str(port), *_PLAIN, "--dir", str(directory), "--cluster-enabled", "yes"]
    command += ["--cluster-node-timeout", str(patience), "--cluster-require-full-coverage", "no"]
    command += ["--repl-diskless-sync-delay", "0"]
    with running(command, port, "redis") as server:
        yield server


def _cluster_port() -> int:
    """The nodes talk to each other on the port 10000 above."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 10000))
            return port


def _told(client: Redis, command: str) -> bytes:
    answer = client.execute_command(command)  # type: ignore[no-untyped-call]
    return answer if isinstance(answer, bytes) else repr(answer).replace("': '", ":").encode()


def _known(client: Redis) -> int:
    return int(_told(client, "CLUSTER INFO").partition(b"cluster_known_nodes:")[2].split(b"'")[0].split()[0])


def _link(client: Redis) -> object:
    return client.info("replication").get("master_link_status")


@dataclass(frozen=True)
class Sentinels:
    """``url`` names the sentinels. ``password`` is the data nodes'; the sentinels have none."""

    primary: Server
    replica: Server
    sentinels: list[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{SERVICE}"


@contextlib.contextmanager
def redis_sentinels(directory: Path) -> Iterator[Sentinels | None]:
    """A primary, its replica, and two sentinels that agree within a second."""
    binary = redis_binary()
    if binary is None:
        yield None
        return
    keys = ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"]
    with contextlib.ExitStack() as stack:
        ports = [free_port(), free_port()]
        commands = [[binary, "--port", str(port), *_PLAIN, *keys, "--dir", str(directory)] for port in ports]
        commands[1] += ["--replicaof", f"127.0.0.1 {ports[0]}"]
        pair = [
            stack.enter_context(running(command, port, "redis"))
            for command, port in zip(commands, ports, strict=True)
        ]
        client = stack.enter_context(Redis(port=pair[1].port, password=PASSWORD))
        _until(lambda: _link(client) == "up")
        sentinels = []
        for number in range(2):
            port = free_port()
            file = directory / f"sentinel-{number}.conf"
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {ports[0]} 1\n"
                f'sentinel auth-pass {SERVICE} "{PASSWORD}"\n'
                f"sentinel down-after-milliseconds {SERVICE} 500\n"
                f"sentinel failover-timeout {SERVICE} 3000\n"
            )
            sentinels.append(stack.enter_context(running([binary, str(file), "--sentinel"], port, "redis")))
        for server in sentinels:
            told = stack.enter_context(Redis(port=server.port))
            _until(lambda told=told: _sees_all(told.sentinel_master(SERVICE)))  # type: ignore[misc]
        yield Sentinels(pair[0], pair[1], sentinels)


def _sees_all(said: dict[str, object]) -> bool:
    return said.get("num-slaves") == 1 and said.get("num-other-sentinels") == 1


@dataclass(frozen=True)
class Authority:
    """Files in PEM: who signs, and a certificate of a server (127.0.0.1) and one of a client."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]

    @property
    def query(self) -> str:
        return f"ca={self.ca}&cert={self.client[0]}&key={self.client[1]}"


def make_authority(directory: Path) -> Authority | None:
    """None where there is no openssl."""
    if shutil.which("openssl") is None:
        return None
    ca, signing = _signed(directory, "ca", [])
    by = ["-CA", str(ca), "-CAkey", str(signing)]
    server = _signed(directory, "server", [*by, "-addext", "subjectAltName=IP:127.0.0.1"])
    return Authority(ca, server, _signed(directory, "client", by))


def _signed(directory: Path, name: str, more: list[str]) -> tuple[Path, Path]:
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN=edgeproxy test {name}", *more,
    ]  # fmt: skip
    if more:
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@contextlib.contextmanager
def redis_tls(authority: Authority) -> Iterator[Server | None]:
    """It wants a client's certificate, and USER with PASSWORD, who may touch our keys alone. None also where
    the binary knows no TLS."""
    binary = redis_binary()
    if binary is None or b"SSL_CTX_new" not in Path(binary).read_bytes():
        yield None
        return
    port = free_port()
    cert, key = authority.server
    users = cert.with_name("users.acl")
    users.write_text(f"user {USER} on >{PASSWORD} ~edgeproxy:* ~{{edgeproxy:* +@all\nuser default off\n")
    command = [binary, "--port", "0", "--tls-port", str(port), *_PLAIN, "--tls-ca-cert-file"]
    command += [str(authority.ca), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    command += ["--aclfile", str(users)]
    with running(command, port, "rediss") as server:
        yield server


def _until(condition: Callable[[], bool]) -> None:
    """Servers that agree with each other: there is no event to wait for."""
    for _ in range(2000):
        with contextlib.suppress(RedisError):
            if condition():
                return
        time.sleep(0.02)
    raise RuntimeError("the servers did not agree in 40 s")
