"""Checks of arguments, whose errors name the argument."""


def at_least(name: str, value: int, minimum: int) -> int:
    """The value, where it is an integer not under the minimum.

    Raises:
        ValueError: otherwise; it names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    return value
