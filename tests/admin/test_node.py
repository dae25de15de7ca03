"""The node's Control over real sockets: workers that answer, refuse, hang and are gone."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.admin.control import (
    ExplainRequest,
    Kind,
    PartHealth,
    PurgeRequest,
    Refused,
    ReloadResult,
    Replaced,
    State,
    WarmRequest,
)
from edgeproxy.admin.listener import AdminListener
from edgeproxy.admin.node import Node
from edgeproxy.admin.private import make_private
from edgeproxy.admin.problem import Problem
from edgeproxy.admin.worker_link import NoAnswer, WorkerLink
from edgeproxy.alerting.watch import Watch
from edgeproxy.observe.percentiles import Percentiles
from edgeproxy.rules.history import RuleHistory
from edgeproxy.rules.snapshot import RuleSnapshot
from tests.admin.control import SmallControl
from tests.alerting.made import plan
from tests.support.driven import DrivenClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from edgeproxy.admin.team import Member
    from edgeproxy.rules.history import Order

RULES = "rules: [{{name: {name}, match: {{path: /a}}, ttl: 1m}}]\n"


class SmallWorker(SmallControl):
    """A worker that takes rules over, unless it has other ideas."""

    def __init__(self, clock: DrivenClock) -> None:
        super().__init__()
        self.directories: list[Path] = []
        self.earned: dict[str, Any] = {"rules": {}, "splits": {}, "tally": {}}
        self.orders: list[Order] = []
        self.differs: Mapping[str, object] = {"compared": 1, "differing": 0, "pairs": []}
        self.own_version: str | None = None
        self.percentiles = Percentiles(clock.now)
        self.shared_store = False

    async def latencies(self, *, recent: bool = False) -> Mapping[str, object]:
        return self.percentiles.dump(recent=recent)

    async def take_rules(self, order: Order) -> ReloadResult:
        self.directories.append(order.directory)
        self.orders.append(order)
        return ReloadResult(self.own_version or order.wanted().mark, 1)

    async def evidence(self) -> Mapping[str, Any]:
        return self.earned

    async def differing(self) -> Mapping[str, object]:
        return self.differs

    async def stats(self) -> Mapping[str, object]:
        return {"requests": 3, "store": {"l2_name": "x"} if self.shared_store else {}}


class SmallMember:
    def __init__(self, name: str, link: WorkerLink) -> None:
        self.name = name
        self.link = link


class SmallTeam:
    def __init__(self) -> None:
        self.state = State.READY
        self.members: list[SmallMember] = []
        self.wanted = 2
        self.replaced: list[tuple[str, str]] = []

    def ready(self) -> list[SmallMember]:
        return list(self.members)

    def describe(self) -> list[dict[str, object]]:
        return [{"name": member.name} for member in self.members]

    def numbers(self) -> Mapping[str, int]:
        return {"workers": self.wanted, "workers_ready": len(self.members), "crashes_total": 0}

    def replacement(self) -> Mapping[str, object]:
        return {}

    async def replace_all(self) -> Replaced:
        return Replaced(2)

    def replace(self, member: Member, why: str) -> None:
        self.replaced.append((member.name, why))


class Setting:
    """Two workers, their node, and the rules' directory."""

    def __init__(self, directory: Path) -> None:
        self.clock = DrivenClock()
        self.workers = [SmallWorker(self.clock) for _ in range(2)]
        self.listeners = [AdminListener(make_private(worker, self.clock)) for worker in self.workers]
        self.team = SmallTeam()
        self.source = directory / "source"
        self.source.mkdir()
        self.write("one")
        snapshot = RuleSnapshot(self.source, directory, RuleHistory(directory / "kept"))
        snapshot.take()
        self.node = Node(self.team, snapshot, self.clock)
        self.node.node_rules.record("start")

    def write(self, name: str) -> None:
        (self.source / "one.yaml").write_text(RULES.format(name=name))


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path)
    async with AsyncExitStack() as stack:
        for number, listener in enumerate(made.listeners):
            path = tmp_path / f"{number}.sock"
            await listener.serve_path(path)
            stack.push_async_callback(listener.close)
            link = WorkerLink(path)
            stack.push_async_callback(link.close)
            made.team.members.append(SmallMember(f"worker {number + 1}", link))
        yield made


async def test_a_pulse_is_the_sum_of_the_workers(setting: Setting) -> None:
    for worker, seconds in zip(setting.workers, (0.01, 0.1), strict=True):
        worker.percentiles.observe("a", seconds, hit=True)
    told = await setting.node.pulse(0, "5m", tables=True)
    assert [slot[1] for slot in told["slots"]] == [2]
    assert told["rules"]["a"][0] == 2
    assert told["wanted"] == [["http://h/1", "pitches", 4.0]]
    assert told["facts"]["connections"] == 2
    assert told["facts"]["node"]["workers_ready"] == 2
    await setting.listeners[0].close()  # one is gone: the other one's numbers are told
    told = await setting.node.pulse(0, "5m", tables=False)
    assert [slot[1] for slot in told["slots"]] == [1]
    assert "facts" not in told


async def test_a_replaced_worker_leaves_its_last_hour(setting: Setting) -> None:
    for worker in setting.workers:
        worker.percentiles.observe("a", 0.01, hit=True)
    before = await setting.node.pulse(0, "5m", tables=True)
    report = await setting.node.performance()
    old = setting.team.members[0]
    await setting.node.figures.retiring(old)
    setting.team.members.remove(old)
    after = await setting.node.pulse(0, "5m", tables=True)
    assert (after["slots"], after["rules"]) == (before["slots"], before["rules"])
    assert await setting.node.performance() == report
    await setting.listeners[0].close()
    await setting.node.figures.retiring(old)  # it is gone already: nothing is told, nothing fails


async def test_explain_is_answered_by_the_worker_that_knows_the_last_answer(setting: Setting) -> None:
    wanted = ExplainRequest("/a?b", "PUT", (("Cookie", "a=b; c"),), 404, (("ETag", '"x"'),))
    assert (await setting.node.explain(wanted))["text"] == "rule pitches"
    assert [worker.explained for worker in setting.workers] == [[wanted], [wanted]]
    for worker, age, text in zip(setting.workers, (None, 7.0), ("assumed", "stored"), strict=True):
        worker.explanation = {"explanation": {"answer": {"age": age}}, "text": text}
    assert (await setting.node.explain(wanted))["text"] == "stored"
    with pytest.raises(Refused, match="expected a path"):
        await setting.node.explain(ExplainRequest("/refused"))
    for listener in setting.listeners:
        await listener.close()
    with pytest.raises(Problem):
        await setting.node.explain(wanted)


async def test_a_purge_goes_to_one_worker(setting: Setting) -> None:
    wanted = PurgeRequest(Kind.TAG, "pitches", soft=True)
    answer = await setting.node.purge(wanted)
    assert (answer.number, answer.objects, answer.bytes, answer.status) == (1, 3, 3000, 200)
    assert [worker.purged for worker in setting.workers] == [[wanted], []]
    await setting.node.purge(PurgeRequest(Kind.ALL))
    assert setting.workers[0].purged[-1] == PurgeRequest(Kind.ALL)


async def test_where_that_one_is_gone_another_is_asked(setting: Setting) -> None:
    await setting.listeners[0].close()
    await setting.node.purge(PurgeRequest(Kind.URL, "/a"))
    assert setting.workers[1].purged == [PurgeRequest(Kind.URL, "/a")]
    await setting.listeners[1].close()
    with pytest.raises(Problem, match="no worker"):
        await setting.node.purge(PurgeRequest(Kind.URL, "/a"))


async def test_a_layer_that_was_not_told_and_what_is_refused(setting: Setting) -> None:
    setting.workers[0].layers = {"l1": "ok", "l2": "redis: refused"}
    answer = await setting.node.purge(PurgeRequest(Kind.URL, "/a"))
    assert answer.status == 503
    assert answer.layers["l2"] == "redis: refused"
    with pytest.raises(Refused, match="begins with http"):
        await setting.node.purge(PurgeRequest(Kind.URL, "relative"))
    assert setting.workers[1].purged == []


async def test_a_warm_up_runs_in_one_worker(setting: Setting) -> None:
    wanted = WarmRequest(("http://h/1", "http://h/2"), host="h", headers=(("accept-language", "de"),))
    assert (await setting.node.warm(wanted))["id"] == "w1"
    assert [worker.warmed for worker in setting.workers] == [[wanted], []]
    assert await setting.node.warm_jobs() == [{"id": "w1"}]
    news = await setting.node.warm_news("w1", 1, 0.5)
    assert news is not None
    assert (news["news"][0]["url"], setting.workers[0].waits) == ("http://h/2", [0.5])
    assert await setting.node.warm_cancel("w1") == {"id": "w1", "state": "cancelled"}
    for job in ("w2", "../stats", ""):
        assert await setting.node.warm_news(job, 0, 0) is None
    with pytest.raises(Refused, match="expected a URL"):
        await setting.node.warm(WarmRequest(("refused",)))
    await setting.listeners[0].close()
    for other in (WarmRequest(sitemap="http://h/s", hosts=("w",)), WarmRequest(most_wanted=3)):
        await setting.node.warm(other)
        assert setting.workers[1].warmed[-1] == other
    await setting.listeners[1].close()
    with pytest.raises(Problem, match="no worker"):
        await setting.node.warm(wanted)


@pytest.mark.parametrize(("shared", "objects"), [(False, 8), (True, 5)])
async def test_a_count(setting: Setting, shared: bool, objects: int) -> None:
    for worker, found in zip(setting.workers, (3, 5), strict=True):
        worker.objects, worker.shared_store = found, shared
    wanted = PurgeRequest(Kind.ALL, dry_run=True)
    answer = await setting.node.count(wanted)
    assert (answer.number, answer.objects, answer.bytes) == (None, None, None)  # nobody counted the octets
    for worker in setting.workers:
        worker.octets = 100
    answer = await setting.node.count(wanted)
    assert (answer.objects, answer.bytes) == (objects, 100 if shared else 200)
    assert all(worker.counted == [wanted] * 2 for worker in setting.workers)


async def test_an_entry_comes_from_the_first_that_has_it(setting: Setting) -> None:
    setting.workers[0].stored = None
    assert await setting.node.entry("/a?b=1&c", [("Accept", "x/y")]) == {"status": 200, "age": 7}
    assert set(map(str, setting.workers[1].asked)) == {str(("/a?b=1&c", [("Accept", "x/y")]))}
    setting.workers[1].stored = None
    assert await setting.node.entry("/a", []) is None


async def test_rules_are_taken_over_by_all(setting: Setting) -> None:
    before = (await setting.node.rules())["version"]
    setting.write("two")
    result = await setting.node.reload_rules()
    assert (result.rules, result.errors, result.missing) == (1, (), ())
    assert result.version != before
    assert (await setting.node.rules())["rules"] == [{"name": "two", "at": "one.yaml:1"}]
    assert (await setting.node.rules())["source"] == str(setting.source)
    for worker in setting.workers:
        (directory,) = worker.directories
        assert (directory / "one.yaml").read_text() == RULES.format(name="two")
    assert setting.team.replaced == []


async def test_wrong_rules_reach_no_worker(setting: Setting) -> None:
    (setting.source / "one.yaml").write_text("rules: 5")
    result = await setting.node.reload_rules()
    assert "one.yaml:1" in result.errors[0]
    assert [worker.directories for worker in setting.workers] == [[], []]
    told = (await setting.node.metrics()).decode()
    assert "\nedgeproxy_config_reload_failed_total 1.0\n" in told
    assert "\nedgeproxy_config_last_reload_successful 0.0\n" in told
    assert setting.node.last_reload == result


async def test_what_rules_have_earned_is_that_of_all_workers(setting: Setting) -> None:
    counts = {"requests": 3, "hits": 1, "passes": 1, "saved_seconds": 0.5, "saved_bytes": 7}
    pairs = {"same": 6, "different": 0, "bodies": 3}
    for worker in setting.workers:
        worker.earned = {
            "rules": {"one": {"stored": 1, "looks": 0, "changed": 0, "read": 0, "unread": 0}},
            "splits": {"one": {"query": {"ref": dict(pairs)}}},
            "tally": {"one": dict(counts)},
        }
        worker.stored = None
    row = (await setting.node.savings())["rules"]["one"]
    assert (row["at"], row["requests"], row["hits"], row["stored"]) == ("one.yaml:1", 6, 2, 2)
    assert (row["passes"], row["hit_ratio"]) == (2, 0.5)
    (finding,) = (await setting.node.doctor())["findings"]
    assert finding["pairs"] == {"ref": 12}
    for worker, age in zip(setting.workers, (9.0, 3.0), strict=True):
        worker.refused = {"reason": "set-cookie", "age": age}
    refusal = await setting.node.refusal("http://h/a", [])
    assert refusal is not None
    assert refusal["age"] == 3.0
    setting.workers[1].refused = setting.workers[0].refused = None
    assert await setting.node.refusal("http://h/a", []) is None


async def test_rules_that_are_tried_are_told_to_all_and_brought_back_from_all(setting: Setting) -> None:
    life = setting.node.rule_life
    tried = [("one.yaml", RULES.format(name="tried").encode())]
    assert not (await life.shadow(tried, 7, "ada")).lines
    assert not (await life.promote(25.0, "ada")).lines
    for worker in setting.workers:
        shadow, promoted = worker.orders
        assert (shadow.percent, promoted.percent, promoted.sample) == (0, 25, 7)
        assert promoted.candidate is not None
        assert (promoted.candidate / "one.yaml").read_bytes() == tried[0][1]
    told = await life.differences()
    assert (told["compared"], told["candidate"]["by"]) == (2, "ada")
    await life.promote(100, "ada")
    assert (await setting.node.rules())["rules"] == [{"name": "tried", "at": "one.yaml:1"}]
    assert setting.workers[0].orders[-1].candidate is None
    await life.rollback("", "bob")
    assert (await setting.node.rules())["rules"] == [{"name": "one", "at": "one.yaml:1"}]
    history = await life.history()
    assert [(v["how"], v["by"]) for v in history["versions"]] == [
        ("start", ""), ("promote", "ada"), ("rollback", "bob"),
    ]  # fmt: skip
    assert history["held"] is None


async def test_who_does_not_take_the_rules_over_is_named_and_replaced(setting: Setting) -> None:
    setting.write("two")
    setting.workers[0].own_version = "another"
    await setting.listeners[1].close()
    result = await setting.node.reload_rules()
    assert result.errors == ()
    assert result.missing[0] == "worker 1: another"
    assert result.missing[1].startswith("worker 2: ")
    assert sorted(name for name, _ in setting.team.replaced) == ["worker 1", "worker 2"]


async def test_health_names_the_worker_whose_part_fails(setting: Setting) -> None:
    setting.workers[1].parts["store"] = PartHealth(ok=False, detail="no room")
    parts = await setting.node.health()
    assert parts["workers"] == PartHealth(ok=True, detail="2 of 2 ready")
    assert parts["origin"].ok
    assert parts["store"] == PartHealth(ok=False, detail="worker 2: no room")
    setting.team.wanted = 3
    assert (await setting.node.health())["workers"] == PartHealth(ok=False, detail="2 of 3 ready")


async def test_numbers_are_those_of_all_who_answer(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    for worker, count in zip(setting.workers, (2, 5), strict=True):
        worker.percentiles.observe_many("a", 0.1, count, count)
    assert (await setting.node.stats())["requests"] == 6
    assert requests(await setting.node.performance()) == 7
    await setting.listeners[1].close()
    assert (await setting.node.stats())["requests"] == 3
    assert requests(await setting.node.performance()) == 2


async def test_what_a_worker_had_counted_stays_when_it_ends(setting: Setting) -> None:
    def counted(told: bytes) -> float:
        (line,) = [x for x in told.decode().splitlines() if x.startswith("edgeproxy_requests_total ")]
        return float(line.rpartition(" ")[2])

    for worker in setting.workers:
        worker.exposition = (
            b"# HELP edgeproxy_requests_total x\n"
            b"# TYPE edgeproxy_requests_total counter\n"
            b"edgeproxy_requests_total 4\n"
        )
    assert counted(await setting.node.metrics()) == 8
    setting.workers[0].exposition = setting.workers[0].exposition.replace(b" 4", b" 6")
    leaver = setting.team.members[0]
    await setting.node.figures.retiring(leaver)
    setting.team.members.remove(leaver)
    setting.node.figures.ended(leaver)
    assert counted(await setting.node.metrics()) == 10
    await setting.listeners[1].close()  # it does not answer for now: what it last said counts
    assert counted(await setting.node.metrics()) == 10


async def test_a_worker_that_hangs_is_not_alive(setting: Setting) -> None:
    link = setting.team.members[0].link
    assert await link.alive(5)
    setting.workers[0].gate_all.clear()
    with pytest.raises(NoAnswer, match=r"within 0\.05 s"):
        await link.ask("GET", "/api/cache/entry", query=[("url", "/hang")], patience=0.05)
    setting.workers[0].gate_all.set()
    await setting.listeners[0].close()
    assert not await link.alive(5)


def requests(told: Mapping[str, Any]) -> int:
    found: int = told["rules"]["a"]["1m"]["requests"]
    return found


async def test_what_is_watched_for_the_node_is_in_its_numbers(setting: Setting) -> None:
    watch = Watch(plan(), {}, setting.node, setting.clock, lambda work, _: work.close(), "node")
    assert b"edgeproxy_alerts" not in await setting.node.metrics()
    setting.node.watched_by(watch)
    assert setting.node.alerts is watch
    assert b"\nedgeproxy_alerts_firing 0.0\n" in await setting.node.metrics()
    assert (await setting.node.stats())["alerts"] == watch.numbers()
