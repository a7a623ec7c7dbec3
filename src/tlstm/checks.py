"""Checks of arguments, whose errors name the argument."""

import operator


def at_least(name: str, value: int, minimum: int) -> int:
    """The value, where it is an integer not under the minimum.

    Raises:
        ValueError: otherwise; it names the argument.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    return number


def share(name: str, value: float) -> float:
    """The value, where it is a number from 0 to 1.

    Raises:
        ValueError: otherwise; it names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
    return value


def true_or_false(name: str, value: bool) -> bool:
    """The value, where it is True or False.

    Raises:
        ValueError: otherwise; it names the argument.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value
