"""What the settings ask for, in the words of the parts that are to do it.

Rules of this file: one function a part, and no part knows another. What cannot be had as it was asked for is
a SettingsError that names the flag, before anything is served.
"""

from __future__ import annotations

import logging
import resource
import socket
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.admin.auth import Auth, check_admin_address, is_loopback
from edgeproxy.admin.token_file import TOKEN_FILE, make_token
from edgeproxy.cluster.shared_buckets import SharedBuckets
from edgeproxy.descriptors import Shares, shared_out
from edgeproxy.front.doors import Terms
from edgeproxy.front.respond import EdgeFields
from edgeproxy.front.tls import Certificates
from edgeproxy.networks import Networks
from edgeproxy.origin.board import Board
from edgeproxy.rules.history import RuleHistory
from edgeproxy.rules.model import RateLimit
from edgeproxy.rules.pools import Given, Timeouts
from edgeproxy.settings import SettingsError
from edgeproxy.store.open import check_store_url, parse_store_url

if TYPE_CHECKING:
    from edgeproxy.settings import HandedDown, Settings

log = logging.getLogger("edgeproxy")


def site(settings: Settings) -> str:
    """Names the origin in the cache directory: what is known of one is nothing to another."""
    return blake2b(f"{settings.origin}\n{settings.origin_host}".encode(), digest_size=6).hexdigest()


def rule_history(settings: Settings) -> RuleHistory | None:
    """None where none is to be kept, or there is no place for it."""
    if not settings.rule_history or settings.rules is None:
        return None
    named = f"{site(settings)}\n{settings.rules.resolve()}"
    try:
        place = settings.cache_dir / f"rules-{blake2b(named.encode(), digest_size=6).hexdigest()}"
        return RuleHistory(place, settings.rule_history)
    except OSError as error:
        log.warning("no versions of the rules are kept: %s: %s", settings.cache_dir, error.strerror)
        return None


def given(settings: Settings, concurrent: int) -> Given:
    """What the command line says of origins, and how many requests each may have at once."""
    return Given(
        settings.origins,
        Timeouts(
            connect=settings.connect_timeout,
            first_byte=settings.first_byte_timeout,
            between_bytes=settings.read_timeout,
        ),
        concurrent,
    )


def check_store(settings: Settings) -> None:
    """Raise SettingsError for a --store that means nothing, or whose files cannot be read."""
    try:
        check_store_url(settings.store)
    except ValueError as error:
        raise SettingsError(f"--store: {error}") from None


def state_dir(settings: Settings, handed: HandedDown | None) -> Path | None:
    """Where the purge table goes. One worker with memory alone needs none: both end together."""
    if handed is not None:
        return Path(handed.state)
    if parse_store_url(settings.store).kind in ("memory", "lmdb"):
        return None
    try:
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("purges are forgotten at the end: %s: %s", settings.cache_dir, error.strerror)
        return None
    return settings.cache_dir


def board(handed: HandedDown | None) -> Board | None:
    """What the workers of a node tell one another of origins; none where there is one worker."""
    if handed is None:
        return None
    try:
        return Board.open(handed.directory, handed.slot)
    except OSError as error:
        log.warning("each worker finds out for itself which origins fail: %s", error.strerror)
        return None


def buckets(handed: HandedDown | None) -> SharedBuckets | None:
    """Of rate limits, the node's; each worker's own where there is one."""
    if handed is None:
        return None
    try:
        return SharedBuckets.open(handed.directory)
    except OSError as error:
        log.warning("each worker counts rate limits for itself: %s", error.strerror)
        return None


def purge_limit(settings: Settings) -> RateLimit | None:
    """Of the admin port."""
    return RateLimit(settings.purge_rate, settings.purge_rate * 10) if settings.purge_rate else None


def tls_of(settings: Settings) -> Certificates | None:
    """Of the listener; None: HTTP. Raises SettingsError."""
    return _certificates("--tls", settings.tls_certificate, settings.tls_client_ca)


def admin_tls(settings: Settings) -> Certificates | None:
    """Of the admin port. Raises SettingsError."""
    return _certificates("--admin-tls", settings.admin_tls_certificate, settings.admin_tls_client_ca)


def _certificates(flag: str, files: tuple[tuple[Path, Path], ...], client_ca: str) -> Certificates | None:
    if not files:
        if client_ca:
            raise SettingsError(f"{flag}-client-ca: means nothing without {flag}-certificate")
        return None
    try:
        return Certificates(files, Path(client_ca) if client_ca else None)
    except ValueError as error:
        raise SettingsError(f"{flag}-certificate: {error}") from None


def admin_auth(settings: Settings) -> Auth:
    """Who may do what on the admin port. Raises SettingsError."""
    try:
        check_admin_address(settings.admin.host, settings.admin_token)
        return Auth(admin_token(settings), settings.read_token, loopback=is_loopback(settings.admin.host))
    except ValueError as error:
        raise SettingsError(f"--admin: {error}") from None


def admin_token(settings: Settings) -> str | None:
    """The admin token; on one's own machine, where none is set, one in a file that only we can read."""
    if settings.admin_token:
        return settings.admin_token
    try:
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        return make_token(settings.cache_dir / TOKEN_FILE)
    except (OSError, ValueError) as error:
        log.warning("no admin token, so nothing can be changed: %s", error)
        return None


def edge_fields(settings: Settings) -> EdgeFields:
    hidden = settings.hide_fields
    return EdgeFields(
        name=settings.name,
        location=settings.location,
        x_cache_status="x-cache-status" not in hidden,
        cache_status="cache-status" not in hidden,
        proxy_status="proxy-status" not in hidden,
        server_timing="server-timing" not in hidden,
        x_request_id="x-request-id" not in hidden,
        x_edge_location="x-edge-location" not in hidden,
        x_response_time="x-response-time" in settings.show_fields - hidden,
        age="age" not in hidden,
        via="via" not in hidden,
    )


def node_id(settings: Settings) -> str:
    """What tells this node from others in a row (CDN-Loop): the same in all its workers."""
    named = f"{socket.gethostname()}\n{settings.listen}\n{settings.origin}"
    return blake2b(named.encode(), digest_size=6).hexdigest()


def shares(settings: Settings) -> Shares:
    """Of what this process may open."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections, settings.origin_connections
    found = shared_out(*wanted, None if descriptors == resource.RLIM_INFINITY else descriptors)
    if (found.clients, found.concurrent) != wanted:
        log.warning(
            "--max-connections: %d, --origin-connections: %d, since this process may open %d files "
            "(ulimit -n)",
            found.clients,
            found.concurrent,
            descriptors,
        )
    return found


def terms(settings: Settings, most: int) -> Terms:
    """Who may connect, and how often; ``most`` connections."""
    proxies = (*settings.trusted_proxies, *settings.proxy_protocol)
    return Terms(
        most=most,
        each=settings.client_connections,
        exempt=Networks((*settings.unlimited_clients, *proxies)),
        allow=Networks((*settings.allow, *(proxies if settings.allow else ()))),
        deny=Networks(settings.deny),
    )


def bind(host: str, port: int, flag: str) -> socket.socket:
    """A listening-to-be TCP socket. Raises SettingsError with one clear line."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise SettingsError(f"{flag}: {host}:{port}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.setblocking(False)  # noqa: FBT003
    except OSError as error:
        sock.close()
        raise SettingsError(f"{flag}: {host}:{port}: {error.strerror}") from None
    return sock
