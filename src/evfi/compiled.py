"""Loops over bytes, compiled by numba.

Modules whose functions carry `@compiled` import numba, which takes some tenths of a second: import them inside the
functions that use them. The machine code is kept beside the source, or in the user's cache where that cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

try:
    import numba
except OSError as error:  # a reader would take it for an error of its file
    raise ImportError(f"numba cannot be loaded: {error}") from error

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function at its first call: nopython, without the interpreter's lock, kept on disk if that is possible."""
    try:
        return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder can be written: compile anew in each process
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]
