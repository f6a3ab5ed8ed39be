"""Compiled functions over arrays, for the algorithms that walk along a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def jit(function: Function) -> Function:
    """`function` compiled by Numba at its first call and kept on disk; it releases the GIL."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
