"""What the process has let go of goes back to the system."""

from __future__ import annotations

import pytest

from edgeproxy.heap import AT_LEAST, Heap, own_memory, trimmer

MIB = 2**20


def test_a_heap_full_of_holes_is_given_back() -> None:
    trim = trimmer()
    if trim is None or not own_memory():
        pytest.skip("this C library has no malloc_trim, or this system does not tell a process its size")
    heap = Heap(own_memory, trim, int)
    heap.give_back()
    before = own_memory()
    large = [bytes([1]) * 10_000 for _ in range(10_000)]  # 100 MB
    kept = large[::100]
    assert heap.has_grown
    del large
    holes = own_memory()
    heap.give_back()
    assert len(kept) == 100
    assert own_memory() < before + AT_LEAST < holes


def test_what_is_in_use_is_not_asked_for_again() -> None:
    size, asked = 40 * MIB, 0

    def trim() -> None:
        nonlocal asked
        asked += 1

    heap = Heap(lambda: size, trim, int)
    assert not heap.has_grown
    size = 100 * MIB
    assert heap.has_grown
    heap.give_back()
    assert asked == 1
    assert not heap.has_grown
    size = 60 * MIB
    assert not heap.has_grown
    size = 100 * MIB  # it had been smaller meanwhile, so this is growth
    assert heap.has_grown


def test_what_is_stored_explains_growth() -> None:
    size = stored = 40 * MIB
    heap = Heap(lambda: size, lambda: None, lambda: stored)
    size = stored = 400 * MIB
    assert not heap.has_more_than_stored
    size = 400 * MIB + AT_LEAST + 1
    assert heap.has_more_than_stored
    heap.take_for_used()
    assert not heap.has_more_than_stored
