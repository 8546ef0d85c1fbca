from __future__ import annotations

import gc
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2edge.cache import (
    BoundedCache,
    Sam2ImageEmbeddingsInMemoryCache,
    Sam2LowResolutionMasksInMemoryCache,
)
from sam2edge.errors import InvalidInputError


@dataclass(eq=False)
class Value:
    """Stands for an embedding: a size, and a copy on the host."""

    nbytes: int
    on_host: bool = False

    def to_host(self) -> Value:
        return Value(self.nbytes, on_host=True)


@pytest.mark.parametrize("limits", [{"max_bytes": 10}, {"size_limit": 0}])
def test_what_exceeds_the_limits_alone_is_returned_and_not_kept(limits: dict[str, int]) -> None:
    cache = BoundedCache[str, Value](**limits)
    value = Value(11)
    assert cache.get_or_compute("a", lambda: value) is value
    assert len(cache) == cache.statistics.num_bytes == 0


def test_eviction_leaves_a_held_value_whole_and_frees_the_others() -> None:
    cache = BoundedCache[str, np.ndarray](size_limit=1)
    cache.put("a", np.ones(4))
    held = cache.get("a")
    cache.put("b", np.ones(4))
    assert held is not None
    assert held.sum() == 4
    reference = weakref.ref(held)
    del held
    gc.collect()
    assert reference() is None


def test_a_value_may_use_the_cache_while_it_is_freed() -> None:
    # Device buffers run code when they are freed; under the cache's lock that would never end.
    class Freed:
        nbytes = 1

        def __del__(self) -> None:
            seen.append(cache.statistics.num_entries)

    seen: list[int] = []
    cache = BoundedCache[str, Freed](size_limit=1)
    cache.put("a", Freed())
    cache.put("b", Freed())
    cache.clear()
    assert seen == [1, 0]


def test_statistics_and_clear() -> None:
    cache = BoundedCache[str, Value](size_limit=1)
    cache.get("a")
    cache.put("a", Value(3))
    cache.get("a")
    cache.put("b", Value(5))
    found = cache.statistics
    assert (found.hits, found.misses, found.evictions, found.num_entries, found.num_bytes) == (1, 1, 1, 1, 5)
    cache.clear()
    assert (len(cache), cache.statistics.num_bytes, cache.statistics.evictions) == (0, 0, 1)
    assert not cache.remove("b")


def test_threads_that_ask_for_the_same_key_compute_it_once() -> None:
    cache = BoundedCache[str, Value]()
    calls = []

    def make() -> Value:
        calls.append(1)
        _wait_until_others_wait(cache)
        return Value(1)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cache.get_or_compute("a", make), range(8)))
    assert len(calls) == 1
    assert len({id(value) for value in found}) == 1


def test_waiting_threads_get_a_value_that_is_too_large_to_keep() -> None:
    cache = BoundedCache[str, Value](max_bytes=0)
    started, finish = threading.Event(), threading.Event()
    value = Value(1)

    def make() -> Value:
        started.set()
        assert finish.wait(5)
        return value

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_compute, "a", make)
        assert started.wait(5)
        second = pool.submit(cache.get_or_compute, "a", lambda: pytest.fail("computed twice"))
        _wait_until_others_wait(cache, 1)
        finish.set()
        assert first.result(5) is second.result(5) is value


def test_when_the_first_fails_it_alone_gets_the_error() -> None:
    cache = BoundedCache[str, Value]()
    started, finish = threading.Event(), threading.Event()

    def fail() -> Value:
        started.set()
        assert finish.wait(5)
        raise RuntimeError("no device")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_compute, "a", fail)
        assert started.wait(5)
        second = pool.submit(cache.get_or_compute, "a", lambda: Value(7))
        _wait_until_others_wait(cache, 1)
        finish.set()
        assert second.result(5).nbytes == 7
        with pytest.raises(RuntimeError, match="no device"):
            first.result(5)
    assert "a" in cache


def test_other_keys_do_not_wait_and_one_that_asks_for_itself_ends() -> None:
    cache = BoundedCache[str, Value]()

    def make() -> Value:
        cache.get_or_compute("b", lambda: Value(2))
        return cache.get_or_compute("a", lambda: Value(3))

    assert cache.get_or_compute("a", make).nbytes == 3
    assert cache.statistics.num_bytes == 5


@pytest.mark.parametrize("limit", [-1, 1.5, "10", True, float("nan")])
@pytest.mark.parametrize("name", ["size_limit", "max_bytes"])
@pytest.mark.parametrize("kind", [Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache])
def test_limits_that_are_none(kind: Any, name: str, limit: object) -> None:
    with pytest.raises(InvalidInputError, match=f"{name}.*expected.*got.*remedy"):
        kind.init(**{name: limit})


@pytest.mark.parametrize("kind", [Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache])
def test_made_as_the_reference_shows(kind: Any) -> None:
    assert kind.init(size_limit=100, send_to_cpu=True).size_limit == 100
    assert kind.init(size_limit=None).size_limit is None
    assert kind.init(size_limit=np.int64(3)).size_limit == 3


@pytest.mark.parametrize("send_to_cpu", [True, False])
def test_embeddings_go_to_the_host_when_asked(send_to_cpu: bool) -> None:
    cache = Sam2ImageEmbeddingsInMemoryCache.init(send_to_cpu=send_to_cpu)
    made = cache.get_or_compute("a", lambda: Value(1))
    assert not made.on_host  # who computed it goes on with the device's buffers
    held = cache.get("a")
    assert held is not None and held.on_host == send_to_cpu


A: tuple[Any, ...]
B: tuple[Any, ...]
C: tuple[Any, ...]
A, B, C = ("point", 1.0, 2.0, 1), ("point", 3.0, 4.0, 1), ("box", 1.0, 2.0, 3.0, 4.0)


def test_refinement_starts_from_the_largest_part_of_the_prompt() -> None:
    cache = Sam2LowResolutionMasksInMemoryCache.init()
    for number, prompt in enumerate([{A}, {A, B}, {B}, {A, C}]):
        cache.put(("image", frozenset(prompt)), _logits(number))
    cache.put(("other", frozenset({A, B, C})), _logits(9))
    assert _found(cache.latest_for("image", frozenset({A, B, C}))) == 3  # as large as {A, B}, and saved later
    assert _found(cache.latest_for("image", frozenset({A, B}))) == 1
    assert _found(cache.latest_for("image", frozenset({A, B, C}))) == 1  # used later than {A, C}
    assert _found(cache.latest_for("image", frozenset({B, C}))) == 2
    assert cache.latest_for("image", frozenset({C})) is None
    assert cache.latest_for("third", frozenset({A})) is None


def test_two_boxes_that_share_their_left_edge_are_two_prompts() -> None:
    cache = Sam2LowResolutionMasksInMemoryCache.init()
    cache.put(("image", frozenset({("box", 1.0, 2.0, 3.0, 4.0)})), _logits(1))
    assert cache.latest_for("image", frozenset({("box", 1.0, 2.0, 3.0, 5.0)})) is None


def test_masks_are_counted_one_by_one() -> None:
    cache = Sam2LowResolutionMasksInMemoryCache.init(size_limit=2)
    for number, prompt in enumerate([{A}, {B}, {C}]):
        cache.put(("image", frozenset(prompt)), _logits(number))
    assert len(cache) == 2
    assert cache.statistics.num_bytes == 2 * _logits(0).nbytes


def test_kept_masks_are_copies_that_nobody_can_change() -> None:
    cache = Sam2LowResolutionMasksInMemoryCache.init()
    batch = np.zeros((10, 3, 4, 4), np.float32)
    cache.put(("image", frozenset({A})), batch[0])
    batch[:] = 7
    kept = cache.latest_for("image", frozenset({A}))
    assert kept is not None
    assert kept.max() == 0
    assert kept.base is None  # a view would hold the whole batch and count a tenth of it
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def test_masks_of_the_wrong_shape() -> None:
    cache = Sam2LowResolutionMasksInMemoryCache.init()
    with pytest.raises(InvalidInputError, match="expected.*got.*remedy"):
        cache.put(("image", frozenset()), np.zeros((4, 4), np.float32))


KEYS = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.integers(0, 12)),
    st.tuples(st.sampled_from(["get", "remove"]), KEYS),
    st.tuples(st.sampled_from(["release", "shrink_to"]), st.integers(0, 30)),
)


@settings(deadline=None)
@given(st.none() | st.integers(0, 4), st.none() | st.integers(0, 20), st.lists(STEPS, max_size=40))
def test_it_does_what_a_plain_list_would(size_limit: int | None, max_bytes: int | None, steps: list[tuple]) -> None:
    cache = BoundedCache[int, Value](size_limit, max_bytes)
    expected: OrderedDict[int, int] = OrderedDict()

    def shrink(entries: int | None, num_bytes: int | None) -> None:
        while (entries is not None and len(expected) > entries) or (
            num_bytes is not None and sum(expected.values()) > num_bytes
        ):
            expected.popitem(last=False)

    for step, argument, *size in steps:
        if step == "put":
            fits = size_limit != 0 and (max_bytes is None or size[0] <= max_bytes)
            assert cache.put(argument, Value(size[0])) == fits
            expected.pop(argument, None)
            if fits:
                expected[argument] = size[0]
                shrink(size_limit, max_bytes)
        elif step == "get":
            found = cache.get(argument)
            assert (found.nbytes if found else None) == expected.get(argument)
            if argument in expected:
                expected.move_to_end(argument)
        elif step == "remove":
            assert cache.remove(argument) == (expected.pop(argument, None) is not None)
        else:
            before = sum(expected.values())
            shrink(None, argument if step == "shrink_to" else max(0, before - argument))
            assert getattr(cache, step)(argument) == before - sum(expected.values())
        assert cache.statistics.num_bytes == sum(expected.values())
        assert [key for key in range(6) if key in cache] == sorted(expected)


def _logits(number: int) -> np.ndarray:
    return np.full((3, 4, 4), number, np.float32)


def _found(logits: np.ndarray | None) -> int:
    assert logits is not None
    return int(logits[0, 0, 0])


def _wait_until_others_wait(cache: BoundedCache, others: int = 7) -> None:
    """Until that many threads have asked for the key: each has counted a miss, the first one's beside them."""
    for _ in range(500):
        if cache.statistics.misses >= others + 1:
            return
        threading.Event().wait(0.01)
    raise AssertionError("nobody waits")
