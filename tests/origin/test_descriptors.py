"""What a process may open of connections to origins: shared by all, and nobody's fault when it is used up."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING

import pytest

from edgeproxy.origin.base import OriginError
from edgeproxy.origin.descriptors import Descriptors
from edgeproxy.policy.vocabulary import OriginFailure
from tests.origin.conftest import forward, read_all
from tests.support.ledger import Gate, LedgerOrigin, head

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.origin.client import OriginClient


async def refused(client: OriginClient) -> OriginFailure:
    with pytest.raises(OriginError) as caught:
        await client.fetch(forward())
    return caught.value.failure


async def test_origins_share_what_there_is(origin: LedgerOrigin, make: Callable[..., OriginClient]) -> None:
    """One that waits for reuse makes room for another origin's; one in use does not."""
    shared = Descriptors(2)
    one, two, three = (make(descriptors=shared) for _ in range(3))
    for client in (one, two, three, one):
        await read_all(await client.fetch(forward()))
        assert one.connections_open + two.connections_open + three.connections_open <= 2
    origin.script("/held", [head(200, [("Content-Length", "2")]), Gate("g"), b"ok"])
    held = [await client.fetch(forward(target="/held")) for client in (one, two)]
    assert await refused(three) is OriginFailure.OVERLOADED
    assert (shared.refused, three.in_flight) == (1, 0)
    origin.gate("g").open()
    for reply in held:
        await read_all(reply)
    await read_all(await three.fetch(forward()))


async def test_none_left_in_the_process_is_no_fault_of_the_origins(client: OriginClient) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    last = os.open(os.devnull, os.O_RDONLY)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        failure = await refused(client)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in (last, *taken):
            os.close(number)
    assert failure is OriginFailure.OVERLOADED
    await read_all(await client.fetch(forward()))
