from __future__ import annotations

import threading
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.conventions import LABEL_OVERFLOWS, OTHER, REQUEST_OVERHEAD, REQUESTS, REQUESTS_IN_FLIGHT
from sage_obs.metrics.cells import Cell, HistogramCell
from sage_obs.metrics.store import Store

_THREADS, _ROUNDS = 8, 20_000


def test_no_update_of_a_counter_is_lost_between_threads() -> None:
    """Threads that add to one cell without a lock leave exactly the sum of what they added."""
    cell = Cell()
    _hammer(cell.add)
    assert cell.value == _THREADS * _ROUNDS


def test_no_observation_of_a_histogram_is_lost_between_threads() -> None:
    """Counts and sum of a histogram hold every observation that threads made at once."""
    cell = HistogramCell((0.5, 1.0))
    _hammer(lambda: cell.observe(1.0))
    assert cell.counts == [0, _THREADS * _ROUNDS, 0]
    assert cell.sum == _THREADS * _ROUNDS


def _hammer(update: object) -> None:
    def work() -> None:
        for _ in range(_ROUNDS):
            update()  # type: ignore[operator]

    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@given(st.lists(st.floats(0, 10), max_size=50))
def test_a_value_counts_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    """A bound is inclusive, as Prometheus's `le` says, and every value is in exactly one bucket."""
    cell = HistogramCell((1.0, 2.0, 5.0))
    for value in values:
        cell.observe(value)
    assert sum(cell.counts) == len(values)
    assert sum(cell.counts[:2]) == sum(value <= 2.0 for value in values)


def test_an_exemplar_belongs_to_the_bucket_of_its_value() -> None:
    """The last traced observation of a bucket is the one shown there."""
    cell = HistogramCell((1.0, 2.0))
    cell.observe_traced(1.5, "a" * 32)
    cell.observe_traced(1.7, "b" * 32)
    assert cell.exemplars[bisect_left(cell.bounds, 1.7)].trace_id == "b" * 32
    assert set(cell.exemplars) == {1}


def test_values_past_the_budget_become_other_and_are_counted() -> None:
    """The third value of a label with a budget of two is folded, and the fold is counted by metric and label."""
    store = Store(budget=2)
    for operation in ("one", "two", "three", "four", "one"):
        store.cell(REQUESTS, "a1", operation, "http", "success").add()
    seen = {values[1] for family in store.families() if family.metric is REQUESTS for values, _ in family.children()}
    assert seen == {"one", "two", OTHER}
    assert store.cell(REQUESTS, "a1", OTHER, "http", "success").value == 2
    assert store.cell(LABEL_OVERFLOWS, REQUESTS.name, "operation").value == 2


@given(st.lists(st.text(max_size=3), max_size=30), st.integers(1, 5))
def test_a_label_never_takes_more_values_than_its_budget(values: list[str], budget: int) -> None:
    """Whatever comes, a budgeted label has at most its budget of values, and `other`."""
    store = Store(budget=budget)
    for value in values:
        store.cell(REQUESTS_IN_FLIGHT, value).add()
    children = next(family.children() for family in store.families() if family.metric is REQUESTS_IN_FLIGHT)
    assert len({key for key, _ in children} - {(OTHER,)}) <= budget
    assert sum(child.value for _, child in children if isinstance(child, Cell)) == len(values)


def test_a_child_is_the_same_cell_every_time() -> None:
    """Binding twice gives the same cell, so that nothing is split."""
    store = Store()
    assert store.cell(REQUESTS_IN_FLIGHT, "a1") is store.cell(REQUESTS_IN_FLIGHT, "a1")


def test_a_wrong_number_of_labels_is_refused() -> None:
    """A metric says which labels it takes when it is given others."""
    with pytest.raises(ValueError, match="takes the labels"):
        Store().cell(REQUESTS_IN_FLIGHT)


def test_an_objective_becomes_a_bound() -> None:
    """A threshold that is not among the buckets joins them, so that a query hits it exactly."""
    cell = Store(objectives=((REQUEST_OVERHEAD, (0.123,)),)).histogram(REQUEST_OVERHEAD, "a1", "op")
    assert 0.123 in cell.bounds
    assert list(cell.bounds) == sorted(set(cell.bounds))
