from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.errors import LocalMisuse
from platformctl.routing.gate import Gate
from platformctl.routing.spec import Limits


def full(queue: int = 2, queue_timeout: float = 5.0) -> Gate:
    gate = Gate(Limits(1, queue, queue_timeout))
    assert gate.try_enter()
    return gate


def test_without_a_limit_everybody_enters():
    gate = Gate(Limits())
    assert all(gate.try_enter() for _ in range(1000))
    assert gate.active == 1000
    assert gate.leave() is None
    assert gate.active == 999


def test_at_the_limit_nobody_enters_until_someone_leaves():
    gate = full(queue=0)
    assert not gate.try_enter()
    assert not gate.enqueue("a", 0.0)
    assert gate.leave() is None
    assert gate.try_enter()


def test_the_queue_is_first_in_first_out_and_bounded():
    gate = full(queue=2)
    assert gate.enqueue("a", 0.0)
    assert gate.enqueue("b", 1.0)
    assert not gate.enqueue("c", 2.0)
    assert gate.waiting == 2
    assert [gate.leave(), gate.leave(), gate.leave()] == ["a", "b", None]
    assert (gate.active, gate.waiting) == (0, 0)


def test_a_freed_slot_belongs_to_the_waiter_and_nobody_overtakes():
    gate = full()
    gate.enqueue("a", 0.0)
    assert gate.leave() == "a"
    assert not gate.try_enter()


def test_a_newcomer_waits_behind_others_even_when_there_is_room():
    gate = full()
    gate.enqueue("a", 0.0)
    gate.resize(Limits(2, 2))
    assert not gate.try_enter()
    assert gate.admit() == "a"
    assert gate.active == 2


def test_a_client_that_goes_away_leaves_the_queue():
    gate = full()
    gate.enqueue("a", 0.0)
    gate.enqueue("b", 0.0)
    assert gate.remove("a")
    assert not gate.remove("a")
    assert gate.leave() == "b"


def test_those_that_waited_too_long_are_expired_in_order():
    gate = full(queue=3, queue_timeout=5.0)
    for at, waiter in enumerate("abc"):
        gate.enqueue(waiter, float(at))
    assert gate.next_expiry() == 5.0
    assert gate.expire(4.9) == []
    assert gate.expire(6.0) == ["a", "b"]
    assert gate.next_expiry() == 7.0
    assert gate.expire(100.0) == ["c"]
    assert gate.next_expiry() is None
    assert gate.active == 1


def test_an_expired_waiter_takes_no_slot():
    gate = full()
    gate.enqueue("a", 0.0)
    gate.expire(5.0)
    assert gate.leave() is None
    assert gate.active == 0


def test_clear_gives_up_all_waiters_and_those_inside_still_leave():
    gate = full()
    gate.enqueue("a", 0.0)
    gate.enqueue("b", 0.0)
    assert gate.clear() == ["a", "b"]
    assert gate.leave() is None


def test_lowered_limits_put_nobody_out():
    gate = Gate(Limits(3, 1))
    assert all(gate.try_enter() for _ in range(3))
    gate.enqueue("a", 0.0)
    gate.resize(Limits(1, 0, 9.0))
    assert [gate.leave(), gate.leave()] == [None, None]
    assert gate.leave() == "a"
    assert gate.queue_timeout == 9.0


def test_raised_limits_let_waiters_in_one_by_one():
    gate = full(queue=2)
    gate.enqueue("a", 0.0)
    gate.enqueue("b", 0.0)
    gate.resize(Limits())
    assert [gate.admit(), gate.admit(), gate.admit()] == ["a", "b", None]


def test_misuse_is_reported():
    with pytest.raises(LocalMisuse, match="leave without enter"):
        Gate(Limits()).leave()
    gate = full()
    gate.enqueue("a", 0.0)
    with pytest.raises(LocalMisuse, match="in the queue already"):
        gate.enqueue("a", 1.0)


@given(
    st.integers(0, 3),
    st.integers(0, 3),
    st.lists(st.sampled_from(["come", "leave", "expire", "go away"]), max_size=60),
)
def test_bounds_hold_and_everyone_is_answered_once_in_order(concurrency, queue, steps):
    gate = Gate(Limits(concurrency, queue, 2.0))
    inside, waiting, now = 0, [], 0.0
    for number, step in enumerate(steps):
        now += 0.5
        if step == "come":
            if gate.try_enter():
                assert not waiting
                inside += 1
            elif gate.enqueue(number, now):
                waiting.append(number)
            else:
                assert len(waiting) == queue
        elif step == "leave" and inside:
            successor = gate.leave()
            assert successor == (waiting.pop(0) if waiting else None)
            inside -= successor is None
        elif step == "expire":
            expired = gate.expire(now)
            assert expired == waiting[: len(expired)]
            del waiting[: len(expired)]
        elif step == "go away" and waiting:
            assert gate.remove(waiting.pop())
        assert gate.active == inside
        assert gate.waiting == len(waiting) <= queue
        assert concurrency == 0 or inside <= concurrency
