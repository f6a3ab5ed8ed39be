"""Compiled functions over arrays, for algorithms with loops over a sequence."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def jit(function: Function) -> Function:
    """`function` compiled by Numba at its first call; it releases the GIL.

    It is cached on disk, in $NUMBA_CACHE_DIR, beside the source or in the user's cache directory. A
    process that cannot write to any of these compiles only for itself.
    """
    if os.path.expanduser("~") == "~" and "NUMBA_CACHE_DIR" not in os.environ:
        return _compiled(function, cache=False)  # else Numba would create a folder named ~
    try:
        return _compiled(function, cache=True)
    except RuntimeError:  # no writable folder
        return _compiled(function, cache=False)


def _compiled(function: Function, *, cache: bool) -> Function:
    return cast(Function, numba.njit(cache=cache, nogil=True)(function))
