from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cluster.epoch import PurgeTable
from edgeproxy.policy.vocabulary import LookupMiss
from edgeproxy.store.entry import Entry
from edgeproxy.store.memory import MemoryStore
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from tests.store.make import asking, make_entry

if TYPE_CHECKING:
    import pytest

    from edgeproxy.cluster.epoch import Verdict

nothing = asking()


def store(max_bytes: int = 1_000_000) -> MemoryStore:
    return MemoryStore(max_bytes, PurgeTable.anonymous(4096))


def test_the_least_recently_used_goes_first() -> None:
    probe = store(10_000)
    probe.put(make_entry("/0"))
    memory = store(probe.bytes * 3)
    for number in range(3):
        memory.put(make_entry(f"/{number}"))
    memory.peek("http://api.example/0", nothing)
    memory.put(make_entry("/3"))
    assert memory.evictions == 1
    here = [n for n in range(4) if memory.peek(f"http://api.example/{n}", nothing).entry]
    assert here == [0, 2, 3]


def test_entries_without_a_body_count_too() -> None:
    memory = store(10_000)
    for number in range(100):
        memory.put(make_entry(f"/{number}", b""))
    assert memory.bytes <= 10_000
    assert 0 < memory.entries < 20


def test_one_that_is_too_large_is_not_held_and_neither_is_what_it_replaces() -> None:
    memory = store(5_000)
    memory.put(make_entry(body=b"old"))
    assert memory.put(make_entry(body=b"n" * 10_000, started=2))
    assert (memory.entries, memory.bytes) == (0, 0)


def test_growth_is_charged_and_evicts() -> None:
    memory = store(10_000)
    first, second = make_entry("/1"), make_entry("/2")
    memory.put(first)
    memory.put(second)
    second.codings["br"] = b"x" * 8_700
    memory.resized(second)
    assert memory.entries == 1
    assert memory.bytes == second.size
    memory.resized(first)  # no longer held
    assert memory.bytes == second.size


def test_the_usual_check_asks_the_table_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = store()
    entry = make_entry()
    memory.put(entry)
    asked = []
    judge = memory._table.judge

    def counted(*question: Any) -> Verdict:
        asked.append(question)
        return judge(*question)

    monkeypatch.setattr(memory._table, "judge", counted)
    for _ in range(3):
        assert memory.peek(entry.primary, nothing).entry is entry
    assert asked == []
    memory._table.apply(PurgeOrder(PurgeKind.URL, "/other"), 0.0)
    for _ in range(3):
        assert memory.peek(entry.primary, nothing).entry is entry
    assert len(asked) == 1


def test_a_purged_entry_is_dropped_when_it_is_met() -> None:
    memory = store()
    entry = make_entry()
    memory.put(entry)
    memory._table.apply(PurgeOrder(PurgeKind.URL, "/a"), 0.0)
    assert memory.peek(entry.primary, nothing).miss is LookupMiss.PURGED
    assert memory.peek(entry.primary, nothing).miss is LookupMiss.ABSENT
    assert (memory.entries, memory.bytes) == (0, 0)


def test_the_newest_answer_says_whether_the_key_varies() -> None:
    memory = store()
    memory.put(make_entry(body=b"plain", started=1))
    assert memory.put(make_entry(body=b"de", vary=(("accept-language", "de"),), started=2))
    assert memory.peek("http://api.example/a", asking(accept_language="en")).entry is None
    assert not memory.put(make_entry(body=b"late", started=1))
    assert memory.put(make_entry(body=b"plain again", started=3))
    found = memory.peek("http://api.example/a", asking(accept_language="de")).entry
    assert found is not None
    assert found.body == b"plain again"
    assert memory.entries == 1


async def test_counting_lets_the_loop_run() -> None:
    memory = store(100_000_000)
    for number in range(4_500):
        memory.put(make_entry(f"/{number}"))
    counted = await memory.count(PurgeOrder(PurgeKind.PATTERN, "/1*"))
    assert counted[0] == 1 + 10 + 100 + 1000


actions = st.lists(
    st.tuples(
        st.sampled_from(["put", "peek", "grow", "remove", "purge"]),
        st.integers(0, 4),
        st.sampled_from([None, "de", "en"]),
        st.integers(0, 3000),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(actions)
def test_the_books_always_balance(made: list[tuple[str, int, str | None, int]]) -> None:
    """Whatever happens, what is charged is what is held, and it stays within the bound."""
    memory = store(12_000)
    for step, (what, number, language, size) in enumerate(made):
        vary = () if language is None else (("accept-language", language),)
        select = asking(accept_language=language or "it")
        entry = memory.peek(f"http://api.example/{number}", select).entry
        if what == "put":
            memory.put(
                make_entry(f"/{number}", b"x" * size, vary=vary, epoch=memory._table.current, started=step)
            )
        elif what == "purge":
            memory._table.apply(PurgeOrder(PurgeKind.URL, f"/{number}"), 0.0)
        elif entry is not None and what == "grow":
            entry.codings["br"] = b"x" * size
            memory.resized(entry)
        elif entry is not None and what == "remove":
            memory.remove(entry)
        held = [h for slot in memory._slots.values() for h in _held(slot)]
        assert memory.entries == len(held)
        assert memory.bytes == sum(h.charged for h in held) == sum(h.size for h in held)
        assert memory.bytes <= memory.max_bytes


def _held(slot: Any) -> list[Entry]:
    return [slot] if isinstance(slot, Entry) else list(slot.by_id.values())
