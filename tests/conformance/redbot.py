"""REDbot's notes on answers: ``python -m tests.conformance.redbot`` reads jobs from standard input as JSON.

Rules of this file:

- A process of its own: REDbot brings an event loop that is one for the whole process.
- In: a list of ``{"url", "method", "headers"}``. Out: for each its status and its notes, those on the
  requests that REDbot makes besides (conditions, ranges, codings) included, as
  ``[level, where, note, summary]``.
- One job after the other: the second look at a URL finds what the first one left in the cache.
"""

from __future__ import annotations

import json
import sys
from configparser import ConfigParser
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> None:
    import thor  # (only here: it starts a loop of its own)
    from redbot.resource import HttpResource

    jobs = json.load(sys.stdin)
    config = ConfigParser()
    config.read_dict({"redbot": {"enable_local_access": "True"}})
    results: list[dict[str, Any]] = []

    def following() -> None:
        if len(results) == len(jobs):
            thor.stop()
            return
        job = jobs[len(results)]
        resource = HttpResource(config["redbot"])
        resource.set_request(job["url"], method=job["method"], headers=list(job["headers"].items()))

        def done() -> None:
            results.append(
                {
                    "status": resource.response.status_code,
                    "complete": resource.response.complete,
                    "notes": list(_notes(resource)),
                }
            )
            thor.schedule(0, following)

        resource.on("check_done", done)
        resource.check()

    thor.schedule(0, following)
    thor.run()
    json.dump(results, sys.stdout)


def _notes(resource: Any) -> Iterator[list[str]]:
    looked_at = [("", resource), *((f"{name}: ", sub) for name, sub in resource.subreqs.items())]
    for where, looked in looked_at:
        for note in looked.response.notes:
            for one in (note, *note.subnotes):
                yield [
                    one.level.name,
                    f"{where}{one.subject}",
                    type(one).__name__,
                    str(one.summary),
                ]


if __name__ == "__main__":
    main()
