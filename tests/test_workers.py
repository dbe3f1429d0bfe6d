"""Threads ahead of an iterator: order, errors, how far ahead, and which threads there are."""

from __future__ import annotations

import threading
import time

import pytest

from geoseg.core.workers import Workers


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads):
    def slow(number):
        time.sleep(0.002 * (number % 3))
        return -number

    with Workers(threads) as workers:
        assert list(workers.map(slow, range(20), 4)) == [-n for n in range(20)]
        assert list(workers.map(slow, [], 4)) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_in_its_place(threads):
    def third_fails(number):
        if number == 3:
            raise ValueError("three")
        return number

    found = []
    with Workers(threads) as workers, pytest.raises(ValueError, match="three"):
        for number in workers.map(third_fails, range(9), 2):
            found.append(number)
    assert found == [0, 1, 2]


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_items_are_taken_no_further_ahead_than_asked(ahead):
    taken = []

    def items():
        for number in range(10):
            taken.append(number)
            yield number

    with Workers(3) as workers:
        for number in workers.map(abs, items(), ahead):
            assert len(taken) <= number + 1 + ahead


def test_one_thread_is_the_callers_own():
    for threads in (1, 3):
        with Workers(threads) as workers:
            used = set(workers.map(lambda _: threading.get_ident(), range(50), 8))
        assert len(used) <= max(1, threads - 1)
        assert (threading.get_ident() in used) == (threads == 1)
