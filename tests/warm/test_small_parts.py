"""URLs, schedules and what names an entry, by themselves."""

from __future__ import annotations

import pytest

from edgeproxy.rules.load import load_text
from edgeproxy.rules.model import RuleSet, WarmUp
from edgeproxy.rules.problems import RuleError
from edgeproxy.warm.again import Again, again_of
from edgeproxy.warm.schedule import DAY, Schedule, next_time
from edgeproxy.warm.urls import NotOurs, again_for_url, listed, serves
from tests.support.driven import DrivenClock


@pytest.mark.parametrize(
    ("url", "host", "becomes"),
    [
        ("HTTP://API.example", "", Again("http", "api.example", "/")),
        ("https://h:8443/a?b#c", "", Again("https", "h:8443", "/a?b")),
        ("http://h?x=1", "", Again("http", "h", "/?x=1")),
        ("/a", "h", Again("http", "h", "/a")),
        ("/a", "https://h", Again("https", "h", "/a")),
    ],
)
def test_urls(url: str, host: str, becomes: Again) -> None:
    assert again_for_url(url, host) == becomes


@pytest.mark.parametrize(
    "url", ["", "a", "/a", "//h/a", "ftp://h/", "http://u:p@h/", "http://h/a b", "http://h/\u00e9", "http:///a",
            "http://h/" + "a" * 3000, "http://h\r\nX: y/"],
)  # fmt: skip
def test_what_is_no_url_of_ours(url: str) -> None:
    with pytest.raises(NotOurs):
        again_for_url(url)


def test_headers_that_are_credentials_are_refused() -> None:
    for name in ("cookie", "authorization", "x-api-key", "host"):
        with pytest.raises(NotOurs):
            again_for_url("http://h/", fields=((name, "x"),))


def test_lists() -> None:
    assert listed("# a\n\n http://h/1 \r\nhttp://h/2") == ["http://h/1", "http://h/2"]


def test_hosts_served() -> None:
    assert serves(RuleSet(), "any.example")
    some = load_text("rules: [{name: a, match: {path: /a, host: [h.example, '*.x.example']}, ttl: 1m}]")
    assert [serves(some, h) for h in ("h.example", "H.example:80", "a.x.example", "x.example", "[::1]")] == [
        True, True, True, False, False,
    ]  # fmt: skip


MIDNIGHT = 1_700_006_400.0


@pytest.mark.parametrize(
    ("up", "after", "due"),
    [
        (WarmUp("", every=600.0), 5.0, 605.0),
        (WarmUp("", daily=18_000), MIDNIGHT, MIDNIGHT + 18_000),
        (WarmUp("", daily=18_000), MIDNIGHT + 18_000, MIDNIGHT + DAY + 18_000),
        (WarmUp("", daily=0), MIDNIGHT - 1, MIDNIGHT),
    ],
)
def test_when_it_is_due(up: WarmUp, after: float, due: float) -> None:
    assert next_time(up, after) == due


async def test_a_machine_that_slept_runs_each_once() -> None:
    clock, ran = DrivenClock(), list[str]()

    def run(up: WarmUp) -> bool:
        ran.append(up.at)
        return True

    schedule = Schedule(clock, run)
    schedule.set([WarmUp("a", every=60.0), WarmUp("b", daily=0)])
    clock.jump(3 * DAY)
    await clock.advance(1)
    assert ran == ["a", "b"]
    await clock.advance(60)
    assert ran == ["a", "b", "a"]
    schedule.stop()
    assert clock.pending == ()


class Named:
    """An entry's name."""

    target, variant, seen_as = "/a", "", ""

    def __init__(self, primary: str) -> None:
        self.primary = primary
        self.stored = self
        self.vary: tuple[str, ...] = ()
        self.selecting: tuple[str | None, ...] = ()


@pytest.mark.parametrize(
    ("primary", "fields"),
    [
        ("http://h/a", ()),
        ("http://h/a\0x-tenant=blue\0x-other-\0session;-\0?abcd\0!ef01", (("x-tenant", "blue"),)),
        ("http://h/a\0x-tenant=a=b;c", (("x-tenant", "a=b;c"),)),
        ("http://h/a\0authorization#0123", None),
        ("http://h/a\0session;#0123", None),
        ("http://h/a\0@QUERY json#07", None),
        ("http://a%2Fb/c", None),
        ("://\u0020/a", None),
    ],
)
def test_what_a_key_tells(primary: str, fields: tuple[tuple[str, str], ...] | None) -> None:
    again = again_of(Named(primary))
    assert (None if again is None else again.fields) == fields


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{every: 10m}", "which says what"),
        ("{urls: [http://h/]}", "which says when"),
        ('{every: 10m, at: "05:00", urls: [http://h/]}', "every and at"),
        ("{every: 1s, urls: [http://h/]}", "10s or more"),
        ('{at: "25:00", urls: [http://h/]}', "time of day"),
        ("{every: 1h, urls: [/a]}", "as clients use it"),
        ("{every: 1h, file: list.txt}", "from the root"),
        ("{every: 1h, most_wanted: 0}", "1 to 1000"),
        ("{every: 1h, most_wanted: 5, hosts: [h]}", "no sitemap"),
        ("{every: 1h, most_wanted: 5, rate: 0}", "above 0"),
        ("{every: 1h, cron: x}", 'write "at"'),
    ],
)
def test_wrong_warm_ups_are_refused(text: str, says: str) -> None:
    with pytest.raises(RuleError, match=says):
        load_text(f"warm: [{text}]")


def test_warm_ups_need_no_rules() -> None:
    (up,) = load_text("warm: [{every: 10m, most_wanted: 9, rate: 30/m}]").warm
    assert (up.at, up.every, up.most_wanted, up.rate) == ("rules.yaml:1", 600.0, 9, 0.5)


def test_refresh_ahead_in_words() -> None:
    text = "rules: [{name: a, match: {path: /a}, ttl: 1m, refresh_ahead: %s}]"
    (rule,) = load_text(text % "{within: 5s, rate: 6/m}").rules
    assert rule.refresh_ahead is not None
    assert (rule.refresh_ahead.window(60), rule.refresh_ahead.window(4)) == (5.0, 2.0)
    assert rule.refresh_ahead.rate == 0.1
    (rule,) = load_text(text % "on").rules
    assert rule.refresh_ahead is not None
    assert rule.refresh_ahead.window(60) == 6.0
    assert load_text(text % "off").rules[0].refresh_ahead is None
    for wrong in ("{within: 60%}", "{within: 0}", "{rate: fast}", "{waiting: -1}", "{with: 1}"):
        with pytest.raises(RuleError):
            load_text(text % wrong)
