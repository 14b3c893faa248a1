from __future__ import annotations

from platformctl.routing.outlier import DEFAULT_POLICY, Outlier, OutlierPolicy

POLICY = OutlierPolicy(consecutive=3, rate=0.5, minimum=10, window=10.0, base=5.0, longest=30.0)


def fail(outlier: Outlier, now: float, times: int = 3) -> bool:
    """Whether the last of `times` failures ejected."""
    return [outlier.failure(now) for _ in range(times)][-1]


def test_consecutive_failures_eject_for_the_base_time_and_it_returns():
    outlier = Outlier(POLICY)
    assert [outlier.failure(1.0) for _ in range(3)] == [False, False, True]
    assert outlier.ejected(1.0)
    assert outlier.ejected(5.9)
    assert not outlier.ejected(6.0)
    assert outlier.ejections == 1


def test_a_success_in_between_breaks_the_row():
    outlier = Outlier(POLICY)
    for _ in range(3):
        assert not fail(outlier, 0.0, 2)
        outlier.success(0.0)
    assert not outlier.ejected(0.0)


def test_a_failure_share_ejects_without_a_row():
    outlier = Outlier(POLICY)
    results = []
    for _ in range(5):
        outlier.success(0.0)
        results.append(outlier.failure(0.0))
    assert results == [False, False, False, False, True]


def test_a_failure_share_below_the_rate_or_the_minimum_does_not_eject():
    outlier = Outlier(POLICY)
    for _ in range(30):
        outlier.success(0.0)
        outlier.success(0.0)
        assert not outlier.failure(0.0)


def test_results_of_an_old_window_do_not_count():
    outlier = Outlier(POLICY)
    for now in (0.0, 10.0, 20.0):
        for _ in range(4):
            outlier.success(now)
            assert not outlier.failure(now)


def test_each_ejection_lasts_twice_as_long_up_to_the_cap():
    outlier = Outlier(POLICY)
    lengths, now = [], 0.0
    for _ in range(6):
        assert fail(outlier, now)
        lengths.append(outlier.ejected_until - now)
        now = outlier.ejected_until
    assert lengths == [5.0, 10.0, 20.0, 30.0, 30.0, 30.0]


def test_calm_windows_take_the_growth_back():
    outlier = Outlier(POLICY)
    fail(outlier, 0.0)
    fail(outlier, 5.0)  # until 15; the window after it ends at 25
    outlier.success(26.0)
    fail(outlier, 27.0)
    assert outlier.ejected_until == 27.0 + 10.0
    outlier.success(1000.0)
    fail(outlier, 1000.0)
    assert outlier.ejected_until == 1005.0


def test_an_endpoint_that_fails_at_once_on_return_keeps_its_growth():
    outlier = Outlier(POLICY)
    fail(outlier, 0.0)
    fail(outlier, 5.1)
    assert outlier.ejected_until == 5.1 + 10.0


def test_results_during_an_ejection_change_nothing():
    outlier = Outlier(POLICY)
    fail(outlier, 0.0)
    assert not fail(outlier, 1.0, 50)
    outlier.success(1.0)
    assert outlier.ejected_until == 5.0
    assert not outlier.failure(5.0)  # the count began anew


def test_a_window_that_ends_by_a_failure_begins_anew():
    outlier = Outlier(POLICY)
    outlier.failure(0.0)
    assert not outlier.failure(50.0)
    assert outlier.failure(50.0)  # the row is a row however slow; only shares have windows


def test_the_default_policy_is_used_when_none_is_given():
    outlier = Outlier()
    assert not fail(outlier, 0.0, DEFAULT_POLICY.consecutive - 1)
    assert outlier.failure(0.0)
