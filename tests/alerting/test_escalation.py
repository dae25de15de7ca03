"""Who hears of what, when, and how often."""

from __future__ import annotations

from itertools import pairwise

from edgeproxy.alerting.escalation import FORGOTTEN, PAUSES, Escalation, Kind
from edgeproxy.alerting.plan import Step
from tests.alerting.made import episode, plan

MINUTE = 60.0


def test_all_are_told_at_once_and_after_5_15_and_30_minutes() -> None:
    escalation, fires = Escalation(plan("chat")), episode()
    told = []
    for second in range(0, 3600, 15):
        notices = escalation.due("chat", [fires], second)
        if notices:
            told.append((second / MINUTE, notices[0].kind, notices[0].after / MINUTE))
            escalation.taken("chat", notices, second)
    assert told == [
        (0, Kind.FIRING, 0), (5, Kind.GOES_ON, 5), (15, Kind.GOES_ON, 15), (30, Kind.GOES_ON, 30),
    ]  # fmt: skip


def test_a_later_step_tells_others() -> None:
    steps = (
        Step(0.0, ("chat",)),
        Step(5 * MINUTE, ("mail",)),
        Step(15 * MINUTE, ("pager",), frozenset(("critical",))),
    )
    escalation = Escalation(plan("chat", "mail", "pager", steps=steps, repeat=4 * 3600))
    fires = [episode("Out", "critical"), episode("Slow", origin="b")]
    told: dict[str, list[tuple[float, str, Kind]]] = {"chat": [], "mail": [], "pager": []}
    for second in range(0, 3600, 15):
        for name, heard in told.items():
            notices = escalation.due(name, fires, second)
            heard += [(second / MINUTE, each.episode.alert.name, each.kind) for each in notices]
            escalation.taken(name, notices, second)
    assert told == {
        "chat": [(0, "Out", Kind.FIRING), (0, "Slow", Kind.FIRING)],
        "mail": [(5, "Out", Kind.FIRING), (5, "Slow", Kind.FIRING)],
        "pager": [(15, "Out", Kind.FIRING)],
    }


def test_after_the_last_step_it_is_said_again_every_few_hours() -> None:
    escalation, fires = Escalation(plan("chat", steps=(Step(0.0, ("chat",)),), repeat=3600)), episode()
    at = []
    for second in range(0, 3 * 3600 + 1, 15):
        notices = escalation.due("chat", [fires], second)
        at += [second for _ in notices]
        escalation.taken("chat", notices, second)
    assert at == [0, 3600, 7200, 10800]


def test_who_heard_of_it_hears_that_it_is_over() -> None:
    steps = (Step(0.0, ("chat",)), Step(300.0, ("mail",)))
    escalation, fires = Escalation(plan("chat", "mail", steps=steps)), episode()
    escalation.taken("chat", escalation.due("chat", [fires], 0), 0)
    fires.over = 120.0
    (over,) = escalation.due("chat", [], 120)
    assert (over.kind, over.episode) == (Kind.OVER, fires)
    assert escalation.due("mail", [], 120) == []  # it never heard of it
    escalation.taken("chat", [over], 120)
    assert escalation.due("chat", [], 135) == []


def test_what_a_receiver_did_not_take_is_due_again_later_and_later() -> None:
    escalation, fires = Escalation(plan("chat", "mail")), episode()
    tries: list[float] = []
    now = 0.0
    while len(tries) < 8:
        if escalation.due("chat", [fires], now):
            tries.append(now)
            escalation.failed("chat", now)
        now += 5
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses == [*PAUSES, PAUSES[-1]]
    assert escalation.due("mail", [fires], 0)  # the others are told
    (late,) = escalation.due("chat", [fires], now + 3600)
    assert late.kind is Kind.FIRING  # the first that it takes is the first for it
    escalation.taken("chat", [late], now + 3600)
    assert escalation.failed("chat", now) == PAUSES[0]


def test_one_that_is_over_before_it_was_told_is_not_told() -> None:
    escalation, fires = Escalation(plan("chat")), episode()
    escalation.due("chat", [fires], 0)
    escalation.failed("chat", 0)
    fires.over = 60.0
    assert escalation.due("chat", [], 60) == []


def test_an_end_that_cannot_be_told_is_forgotten() -> None:
    escalation, fires = Escalation(plan("chat")), episode()
    escalation.taken("chat", escalation.due("chat", [fires], 0), 0)
    fires.over = 100.0
    assert escalation.due("chat", [], 100 + FORGOTTEN)
    assert escalation.due("chat", [], 101 + FORGOTTEN) == []
    assert escalation.due("chat", [], 100) == []


def test_one_that_is_back_before_its_end_was_told_went_on() -> None:
    escalation, first = Escalation(plan("chat")), episode()
    for second in (0.0, 1800.0):
        escalation.taken("chat", escalation.due("chat", [first], second), second)
    first.over = 2000.0
    assert [each.kind for each in escalation.due("chat", [], 2000)] == [Kind.OVER]
    escalation.failed("chat", 2000)
    again = episode(fired=2030.0)
    assert escalation.due("chat", [again], 2030) == []  # it has heard, and of no end
    (escalated,) = escalation.due("chat", [again], 2030 + 300)
    assert (escalated.kind, escalated.after) == (Kind.GOES_ON, 300)


def test_a_warning_is_silent_beside_its_critical_one() -> None:
    escalation = Escalation(plan("chat"))
    warning, critical = episode(), episode(severity="critical")
    other = episode(origin="b")
    notices = escalation.due("chat", [critical, warning, other], 0)
    assert [each.episode for each in notices] == [critical, other]
    escalation.taken("chat", notices, 0)
    critical.over = 60.0
    told = [(each.kind, each.episode) for each in escalation.due("chat", [warning, other], 60)]
    assert told == [(Kind.FIRING, warning), (Kind.OVER, critical)]
