"""Kernels compiled to machine code, and a compiler that is only there once one of them is called.

Importing numba costs more than all of the rest, in time and in memory; and of the processes of a running engine
only strategies search the tape.
"""

import functools
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


class Kernel:
    """A function that is compiled when it is first called; numba keeps what it made beside the module."""

    def __init__(self, function: FunctionType) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return (self._compiled or self.compiled())(*arguments)

    def compiled(self) -> Any:
        """The machine code. Kernels that it calls are compiled with it, and stand in its module in their place."""
        if self._compiled is None:
            from numba import njit

            around = self._function.__globals__
            for name in self._function.__code__.co_names:
                if isinstance(around.get(name), Kernel):
                    around[name] = around[name].compiled()
            self._compiled = njit(cache=True)(self._function)
            setattr(sys.modules[self._function.__module__], self._function.__name__, self._compiled)
        return self._compiled


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function be compiled when it is first called."""
    return cast("Callable[P, T]", Kernel(cast("FunctionType", function)))
