from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from platformctl.wire.windows import MIN_RTT, ReceiveWindow


def use(window: ReceiveWindow, n: int, now: float, rtt: float) -> int:
    assert window.take(n)
    return window.give_back(n, now, rtt)


def test_a_sender_cannot_take_more_than_its_credit() -> None:
    window = ReceiveWindow(100, 400)
    assert window.take(60)
    assert not window.take(41)
    assert window.take(40)
    assert window.held == 100


def test_credit_comes_back_when_half_the_window_is_consumed() -> None:
    window = ReceiveWindow(100, 400)
    assert window.take(100)
    assert window.give_back(49, 0.0, 1.0) == 0
    assert window.give_back(1, 0.0, 1.0) == 50
    assert (window.credit, window.held, window.owed) == (50, 50, 0)


def test_a_window_that_is_emptied_within_two_round_trips_doubles_up_to_its_cap() -> None:
    window = ReceiveWindow(100, 350)
    assert use(window, 100, 0.0, 0.1) == 100  # the first give-back only starts the measurement
    assert use(window, 100, 0.2, 0.1) == 200
    assert window.size == 200
    assert use(window, 200, 0.4, 0.1) == 350
    assert window.size == 350
    assert use(window, 350, 0.5, 0.1) == 350
    assert window.size == 350


def test_a_window_that_is_emptied_slowly_stays() -> None:
    window = ReceiveWindow(100, 400)
    use(window, 100, 0.0, 0.1)
    assert use(window, 100, 0.21, 0.1) == 100
    assert use(window, 50, 0.3, 0.1) == 50  # only half of it so far
    assert use(window, 50, 0.5, 0.1) == 50
    assert window.size == 100


def test_an_unknown_round_trip_counts_as_the_shortest_that_can_be_measured() -> None:
    window = ReceiveWindow(100, 400)
    use(window, 100, 0.0, 0.0)
    assert use(window, 100, 2 * MIN_RTT, 0.0) == 200


@given(
    st.integers(1, 1000),
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.floats(0, 1)), max_size=60),
)
def test_the_books_of_a_window_always_balance(size: int, factor: int, steps: list[tuple[int, int, float]]) -> None:
    window = ReceiveWindow(size, size * factor)
    now = 0.0
    announced = size
    taken = 0
    for arriving, leaving, wait in steps:
        now += wait
        if window.take(min(arriving, window.credit)):
            taken += min(arriving, announced - taken)
        announced += window.give_back(min(leaving, window.held), now, 0.05)
        assert window.credit == announced - taken >= 0
        assert window.credit + window.held + window.owed == window.size <= window.cap
        assert window.owed * 2 < window.size
