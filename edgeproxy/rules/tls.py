"""What a pool's ``tls`` says -> an SSLContext, so that a file that is missing or wrong is found at load.

Rules of this file: HTTP/1.1 only; what is not said is as the system has it, verified.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.rules.pools import Tls


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Raises ValueError that names the key and what is wrong with its file."""
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"ca: {tls.ca}: {_said(error)}") from None
    if tls.cert is not None:
        try:
            # The password: none, and nobody is asked for one at a terminal.
            context.load_cert_chain(str(tls.cert), None if tls.key is None else str(tls.key), password="")
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"cert: {tls.cert}: {_said(error)}") from None
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _said(error: OSError) -> str:
    return str(error.strerror or error)
