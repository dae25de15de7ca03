"""What the admin application asks of the proxy: a Protocol, so that it knows no store, engine or origin.

Rules of this file: types only. Whatever is a Mapping goes to the client as JSON; times are in seconds, sizes
in octets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeproxy.admin.rule_life import RuleLife


class State(StrEnum):
    """Where the proxy is in its life. Only READY answers /readyz with 200."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Kind(StrEnum):
    """What a purge goes by."""

    URL = "url"
    TAG = "tag"
    PREFIX = "prefix"
    PATTERN = "pattern"
    ALL = "all"


class Refused(Exception):  # noqa: N818 - it is what happened
    """The request cannot be carried out as it is: one clear line for the client (400)."""


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """``value`` is the URL, tag, prefix or pattern; "" for everything. ``soft``: mark stale."""

    kind: Kind
    value: str = ""
    soft: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class PurgeAnswer:
    """``number``: the purge's own, None for a dry run. ``objects`` and ``bytes`` None: nobody counted.

    ``layers``: layer -> "ok", or what kept it from being told (or counted). ``nodes``: of many each, with
    ``node``, ``number`` (the newest purge it has applied), ``at`` (when it said so) and ``said``.
    """

    number: int | None = None
    objects: int | None = None
    bytes: int | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    nodes: Sequence[Mapping[str, Any]] = ()

    @property
    def status(self) -> int:
        """503: a layer has not been told. 504: a node has not answered. Either may still serve what was to be
        purged."""
        if any(said != "ok" for said in self.layers.values()):
            return 503
        return 200 if all(node["said"] in ("ok", "cut off") for node in self.nodes) else 504


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """``errors``: one line each, "file:line: what was expected"; none when the rules were taken over.

    ``version`` and ``rules`` are those now in force, whichever way it went.
    """

    version: str
    rules: int
    errors: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Workers that did not take over rules which are right, one line each with why."""

    @property
    def lines(self) -> tuple[str, ...]:
        """What went wrong."""
        return self.errors or self.missing


@dataclass(frozen=True, slots=True)
class Replaced:
    """``count`` workers were replaced; ``why_not``: what kept the others from it, "" where nothing did."""

    count: int
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class PartHealth:
    """``detail``: one line for an operator."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WarmRequest:
    """What to have in the cache: one of ``urls``, ``sitemap`` and ``most_wanted``. ``rate`` in URLs a second;
    ``host`` is that of URLs that are paths, ``hosts`` are others than its own that a sitemap may name."""

    urls: tuple[str, ...] = ()
    sitemap: str = ""
    most_wanted: int = 0
    rate: float = 20.0
    concurrency: int = 4
    host: str = ""
    hosts: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """``url`` is a path or an http URL; ``headers`` are the request's. The answer has ``status`` and
    ``answer_headers``; with neither, it is the last one that is known, or else an assumed one."""

    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 0
    answer_headers: tuple[tuple[str, str], ...] = ()


class Alerts(Protocol):
    """Who watches for alerts (alerting/watch.py)."""

    def told(self) -> Mapping[str, Any]:
        """What fires, and how it went with the receivers."""

    async def trial(self) -> Sequence[Mapping[str, Any]]:
        """Tell each receiver that this is a test: what they said."""


class Control(Protocol):
    @property
    def state(self) -> State: ...

    @property
    def alerts(self) -> Alerts | None:
        """None: nobody watches."""

    @property
    def last_reload(self) -> ReloadResult | None:
        """How the last reload went; None: there was none yet."""

    async def health(self) -> Mapping[str, PartHealth]:
        """Ask each part (``store``, ``origin``) whether it works. Called every 10 s at most."""

    async def rules(self) -> Mapping[str, object]:
        """The rule set in force: version, source, and each rule with where it stands."""

    async def reload_rules(self, *, how: str = "reload", by: str = "") -> ReloadResult:
        """Read the rule files again; those in force go on if the new ones are wrong. ``how`` it came to that
        and ``by`` whom are for the history."""

    @property
    def rule_life(self) -> RuleLife: ...

    async def replace_workers(self) -> Replaced:
        """New workers for all, one at a time, with the settings read again. Raises Refused."""

    async def purge(self, request: PurgeRequest) -> PurgeAnswer:
        """Returns when no worker of this node serves what was purged any more. Raises Refused."""

    async def count(self, request: PurgeRequest) -> PurgeAnswer:
        """What the purge would concern. Raises Refused."""

    async def entry(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, object] | None:
        """What is stored for a GET of ``url`` with these request headers, without its body.

        None: nothing. Raises Refused.
        """

    async def refusal(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, object] | None:
        """Why the last answer to a GET of ``url`` with these request headers was not stored, if that is
        remembered. Raises Refused."""

    async def savings(self) -> Mapping[str, Any]:
        """What each rule has earned, and the ttl that is suggested (earned/report.py)."""

    async def doctor(self) -> Mapping[str, Any]:
        """What splits the cache without changing the answer."""

    async def warm(self, request: WarmRequest) -> Mapping[str, object]:
        """Begin a warm-up, in one worker: its ``id`` and how it stands (warmer.Job.told). Raises Refused."""

    async def warm_jobs(self) -> Sequence[Mapping[str, object]]:
        """The warm-ups that are known, oldest first."""

    async def warm_news(self, job: str, after: int, wait: float) -> Mapping[str, Any] | None:
        """How it stands, with ``news``: the results after the first ``after``, 1,000 at most. Where there are
        none, after ``wait`` seconds at most. None: no such warm-up."""

    async def warm_cancel(self, job: str) -> Mapping[str, object] | None:
        """Begin no more of its URLs. None: no such warm-up."""

    async def stats(self) -> Mapping[str, object]:
        """Metrics.snapshot() and what else there is."""

    async def performance(self) -> Mapping[str, object]:
        """Percentiles.report()."""

    async def pulse(self, after: int, window: str, *, tables: bool) -> Mapping[str, Any]:
        """How it is doing now (observe/pulse.py): the slots behind number ``after``, with ``tables`` all that
        pulse.view() shows."""

    async def explain(self, request: ExplainRequest) -> Mapping[str, Any]:
        """What would become of the request under the rules in force: ``explanation`` (data) and ``text``.
        The origin is not asked. Raises Refused."""

    async def metrics(self) -> bytes:
        """Metrics.render()."""
