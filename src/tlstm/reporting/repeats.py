"""Runs that were done again: whether they went the same way."""

from collections.abc import Iterable
from itertools import pairwise

from tlstm.records.schema import (
    CurvePoint,
    Record,
)


def repeats(records: Iterable[Record]) -> list[list[tuple[CurvePoint, CurvePoint]]]:
    """For every time that a run was done again, what it and the time before were validated at.

    Args:
        records: of all times, in any order.

    Returns:
        Pairs of validations after the same samples; a repeat that shares none is left out.
    """
    runs: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.finished):
        runs.setdefault(record.identifier, []).append(record)
    found = [_common(*pair) for each in runs.values() for pair in pairwise(each)]
    return [common for common in found if common]


def _common(first: Record, second: Record) -> list[tuple[CurvePoint, CurvePoint]]:
    before = {point.samples: point for point in first.curve}
    return [(before[point.samples], point) for point in second.curve if point.samples in before]


def in_words(records: Iterable[Record]) -> str:
    """How often runs were done again, and whether they came out the same; "" for never."""
    found = repeats(records)
    if not found:
        return ""
    other = [
        repeat
        for repeat in found
        if any((a.accuracy, a.loss) != (b.accuracy, b.loss) for a, b in repeat)
    ]
    times = "once" if len(found) == 1 else f"{len(found)} times"
    same = f"{len(found) - len(other)} of them " if other else ""
    text = f"{times}, {same}with the same accuracy and loss to the last digit at every validation"
    if not other:
        return text
    largest = max(abs(a.accuracy - b.accuracy) for repeat in other for a, b in repeat)
    return f"{text}, else with accuracies up to {100 * largest:.1f} points apart"
