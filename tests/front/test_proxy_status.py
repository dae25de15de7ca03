"""What the edge's own answers say of themselves, as RFC 9209 has it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import http_sf
import pytest

from edgeproxy.front.proxy_status import ERRORS, proxy_status
from edgeproxy.observe.trace import Trace
from edgeproxy.policy.vocabulary import OriginFailure, PassReason, Unsatisfied
from tests.support.edge import running_edge
from tests.support.ledger import RST, Gate

if TYPE_CHECKING:
    from tests.support.driven import DrivenClock
    from tests.support.ledger import LedgerOrigin

REGISTERED = {
    "dns_timeout", "dns_error", "destination_not_found", "destination_unavailable",
    "destination_ip_prohibited", "destination_ip_unroutable", "connection_refused", "connection_terminated",
    "connection_timeout", "connection_read_timeout", "connection_write_timeout", "connection_limit_reached",
    "tls_protocol_error", "tls_certificate_error", "tls_alert_received", "http_request_error",
    "http_request_denied", "http_response_incomplete", "http_response_header_section_size",
    "http_response_header_size", "http_response_body_size", "http_response_trailer_section_size",
    "http_response_trailer_size", "http_response_transfer_coding", "http_response_content_coding",
    "http_response_timeout", "http_upgrade_failed", "http_protocol_error", "proxy_internal_response",
    "proxy_internal_error", "proxy_configuration_error", "proxy_loop_detected",
}  # fmt: skip
"""RFC 9209 §2.3."""


def test_every_failure_has_a_registered_word() -> None:
    assert {error.decode() for error in ERRORS.values()} <= REGISTERED
    assert set(ERRORS) >= {*OriginFailure, *Unsatisfied} - {OriginFailure.SERVER_ERROR}


@pytest.mark.parametrize("failure", OriginFailure)
def test_it_is_a_structured_field(failure: OriginFailure) -> None:
    trace = Trace(failure=failure, status=503)
    members: Any = http_sf.parse(proxy_status(b"edgeproxy", trace), tltype="list")
    [(member, parameters)] = members
    assert str(member) == "edgeproxy"
    assert parameters["details"] == failure.value
    assert ("error" in parameters) != ("received-status" in parameters)


def test_nothing_where_nothing_is_to_be_said() -> None:
    assert proxy_status(b"edgeproxy", Trace()) == b""
    said = proxy_status(b"edgeproxy", Trace(pass_reason=PassReason.RULE))
    assert said == b'edgeproxy; error=proxy_internal_response; details="rule-says-pass"'


async def test_in_place_of_a_member_in_cache_status(origin: LedgerOrigin, clock: DrivenClock) -> None:
    """RFC 9211 §2: none in what is generated. A stale answer is no such thing."""
    origin.reply("/stale", headers=[("Cache-Control", "max-age=1, stale-if-error=60")], times=1)
    origin.script("/stale", [RST])
    origin.script("/a", [Gate("g"), RST])
    async with running_edge(origin.url, clock=clock) as edge:
        await edge.get("/stale")
        await clock.advance(5)
        stale = await edge.get("/stale")
        assert "detail=reset" in stale["Cache-Status"]
        assert "Proxy-Status" not in stale
        asked = [asyncio.create_task(edge.get("/a")) for _ in range(2)]  # noqa: TID251
        await edge.waiting(1)
        origin.gate("g").open()
        for answer in await asyncio.gather(*asked):
            assert answer.status == 502
            assert answer["Proxy-Status"] == 'edgeproxy; error=connection_terminated; details="reset"'
            assert "Cache-Status" not in answer
    async with running_edge(origin.url, clock=clock, hide_fields="proxy-status") as edge:
        answer = await edge.get("/a", ("Cache-Control", "only-if-cached"))
        assert (answer.status, "Proxy-Status" in answer) == (504, False)
