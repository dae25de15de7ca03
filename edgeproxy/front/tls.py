"""The certificates of a listener: which one a client gets, and how new ones are taken over.

Rules of this file:

- TLS 1.2 with forward secrecy and AEAD ciphers alone, and 1.3; HTTP/1.1 is all that is offered (ALPN).
- A client gets the certificate that names what it asks for (SNI): the name itself before a wildcard, the
  first given where none does or it does not say.
- The files are looked at every LOOK seconds. New ones are taken when all of them load, for the handshakes
  that come then; else the log says why, once, and those that are there go on.
- Only TLS needs the package that reads certificates, so it is imported where one is read.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgeproxy.clock import Clock, Timer

log = logging.getLogger("edgeproxy.tls")

LOOK = 10.0
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; 1.3 has only good ones."""


class Certificates:
    """``files``: certificate chain and key of each (the key may be in the same file). ``client_ca``: clients
    have to show a certificate of one of these authorities. Raises ValueError, one line, where one does not
    load."""

    def __init__(self, files: Sequence[tuple[Path, Path]], client_ca: Path | None = None) -> None:
        self._files = tuple(files)
        self._client_ca = client_ca
        self._timer: Timer | None = None
        self.reloads = self.reload_failures = 0
        self._stamp = self._stamps()
        self._by_name, self._first, self.expires = self._load()
        self.context = self._made(*self._files[0])
        """For the listener. What it holds itself is never used: each handshake is given the one in force."""
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self.pick(name)

    def pick(self, name: str | None) -> ssl.SSLContext:
        """The context for a name that a client asks for."""
        name = (name or "").lower()
        return self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}") or self._first

    # -- new files --------------------------------------------------------------------------------------

    def watch(self, clock: Clock) -> None:
        """Look at the files from now on, until ``close``."""
        self._timer = clock.call_later(LOOK, self._look, clock)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, clock: Clock) -> None:
        self.watch(clock)
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._by_name, self._first, self.expires = self._load()
        except ValueError as error:
            self.reload_failures += 1
            log.error("new TLS files are not taken, the old ones go on: %s", error)  # noqa: TRY400 - no fault of ours
        else:
            self.reloads += 1
            log.info("new TLS files taken: %s", ", ".join(sorted(self._by_name)) or "no names")

    def _stamps(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (*(file for pair in self._files for file in pair), self._client_ca):
            try:
                stat = path.stat() if path is not None else None
            except OSError:
                stat = None
            found.append(stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    # -- files -> contexts ------------------------------------------------------------------------------

    def _load(self) -> tuple[dict[str, ssl.SSLContext], ssl.SSLContext, float]:
        by_name: dict[str, ssl.SSLContext] = {}
        contexts, ends = [], []
        for chain, key in self._files:
            context = self._made(chain, key)
            names, end = _told(chain)
            for name in names:
                by_name.setdefault(name, context)
            contexts.append(context)
            ends.append(end)
        return by_name, contexts[0], min(ends)

    def _made(self, chain: Path, key: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            # The password: none, and nobody is asked for one at a terminal.
            context.load_cert_chain(chain, key, password="")
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"{chain}{'' if key == chain else f' with {key}'}: {_said(error)}") from None
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"{self._client_ca}: {_said(error)}") from None
        return context

    def numbers(self) -> Mapping[str, float]:
        """For the metrics."""
        return {
            "certificate_expires_timestamp_seconds": self.expires,
            "reloads_total": self.reloads,
            "reload_failures": self.reload_failures,
        }


def _told(chain: Path) -> tuple[set[str], float]:
    """The names in a certificate, in lower case, and when it ends, in seconds since 1970."""
    from cryptography import x509  # noqa: PLC0415 - see above

    certificate = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    return {name.lower() for name in names}, certificate.not_valid_after_utc.timestamp()


def _said(error: OSError) -> str:
    return str(error.strerror or error)
