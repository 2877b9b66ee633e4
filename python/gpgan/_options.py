"""Options as callers give them, one at a time: an error names the option, what was expected, and what came."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np


def of_type(argument: str, value: Any, kind: type) -> Any:
    """`value` as a `kind`, which is str, bool, int or float.

    Raises
    ------
    TypeError, ValueError
        If it is of another type (a bool is no number), an integer over 32 bits or one that no float can hold.
    """
    if kind is str and isinstance(value, str):
        return value
    if kind is bool and isinstance(value, (bool, np.bool_)):
        return bool(value)
    if kind is int and not isinstance(value, (bool, np.bool_)):
        try:
            index = operator.index(value)
        except TypeError:
            pass
        else:
            if not -(1 << 31) <= index < 1 << 31:
                raise ValueError(f"{argument}: expected an integer of 32 bits, got {index}")
            return index
    if kind is float and isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{argument}: expected a number that a float can hold, got a larger integer") from None
    raise TypeError(f"{argument}: expected {kind.__name__}, got {type(value).__name__} ({value!r})")


def optional(argument: str, value: Any, kind: type, otherwise: Any) -> Any:
    """`value` as :func:`of_type` gives it, or `otherwise` for None."""
    return otherwise if value is None else of_type(argument, value, kind)


def positive(argument: str, value: Any, most: float) -> float:
    """A number above 0 and up to `most`.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    number: float = of_type(argument, value, float)
    if not 0 < number <= most:  # nor NaN
        raise ValueError(f"{argument}: expected a number above 0 and up to {most:g}, got {value!r}")
    return number


def one_of(argument: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of some names.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    name: str = of_type(argument, value, str)
    if name not in choices:
        raise ValueError(f"{argument}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return name
