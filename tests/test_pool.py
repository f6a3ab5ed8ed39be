"""Processes of a pool leave Ctrl-C to the one that they compute for."""

from __future__ import annotations

import signal

from ptal_ray.process.pool import process_pool


def ignores_sigint(_: int) -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_every_process_ignores_sigint_from_its_start():
    with process_pool(3) as pool:
        assert len(pool._processes) == 3  # all were started while SIGINT was ignored
        assert all(pool.map(ignores_sigint, range(12)))
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
