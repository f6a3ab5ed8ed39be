"""Threads whose results come in the order of the work."""

from __future__ import annotations

import threading
import time

import pytest

from ptal_ray.process.threads import in_order


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers: int) -> None:
    def made(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return 2 * number

    with in_order(made, range(10), workers) as results:
        assert list(results) == [2 * number for number in range(10)]


def test_few_results_wait_in_memory() -> None:
    begun: list[int] = []
    with in_order(begun.append, range(100), 2) as results:
        next(results)
        time.sleep(0.05)
        assert len(begun) <= 4  # one was taken, three may wait


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_in_its_place_and_ends_the_work(workers: int) -> None:
    done: list[int] = []

    def made(number: int) -> int:
        if number == 3:
            raise ValueError("third")
        done.append(number)
        return number

    got = []
    with pytest.raises(ValueError, match="third"), in_order(made, range(1000), workers) as results:
        got.extend(results)
    assert len(done) < 10
    assert threading.active_count() == 1 or not [
        t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")
    ]
