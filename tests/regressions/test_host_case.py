"""Host goes to the origin as sent; an origin that repeats it can only answer for those same letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.support.driven import DrivenClock
from tests.support.edge import running_edge
from tests.support.ledger import LedgerOrigin

if TYPE_CHECKING:
    from tests.support.ledger import Recorded


async def test_host_in_other_letters_is_another_entry_and_one_purge_takes_both() -> None:
    def repeated(request: Recorded) -> bytes:
        return f"{request.get('host')} {request.version}".encode()

    async with LedgerOrigin() as origin, running_edge(origin.url, clock=DrivenClock()) as edge:
        origin.reply("/a", body=repeated)
        for _ in range(2):
            for host in ("api.test", "API.Test"):
                assert (await edge.get("/a", ("Host", host))).body == f"{host} 1".encode()
        assert origin.count("/a") == 2
        await edge.worker.store.purge(PurgeOrder(PurgeKind.URL, "/a", host="api.test"))
        origin.bump("/a")
        for host in ("api.test", "API.Test"):
            assert (await edge.get("/a", ("Host", host))).body == f"{host} 2".encode()
