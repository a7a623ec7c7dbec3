"""The command line of the benchmark.

Measures the layer and its peers, case by case, and records the numbers: microseconds per
timestep of the whole batch forward and forward plus backward, memory, kernels, compile and
capture time, errors against float64 and the share of the roofline.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tlstm.bench.cases import TIMESTEPS
from tlstm.records.measurement import IMPLEMENTATIONS, SUITES
from tlstm.utils import CommandParser, interruptions, leaving_at_once, refusals

MOST_SECONDS = 3600


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = CommandParser(
        prog="python -m tlstm.bench",
        description=__doc__,
        epilog="exit code: 0 measured; 1 something failed, which is recorded; 2 refused. "
        "Add the records with `python -m tlstm.results collect --runs FILE`.",
    )
    add = found.add_argument
    add("--suite", nargs="+", default=["all"], choices=[*SUITES, "all"])
    add("--device", help="cpu or cuda (default: cuda where there is one)")
    switch = argparse.BooleanOptionalAction
    quick = "short sequences and no large cases (default: without a GPU)"
    add("--quick", action=switch, help=quick)
    add("--case", nargs="+", default=[], metavar="PATTERN", help="cases whose names match")
    add("--implementation", nargs="+", choices=IMPLEMENTATIONS, help="only these competitors")
    steps = f"of a sequence, at most the task's own (default: {TIMESTEPS}, quick 5 or 10)"
    add("--timesteps", type=_positive, help=steps)
    add("--seconds", type=_seconds, default=0.3, help="of timing per number (default: 0.3)")
    output = "file; its lines stay if it exists (default: runs/runtime/<time>.jsonl)"
    add("--output", type=Path, help=output)
    kernels = "count kernels, on a GPU, after all timing"
    add("--kernels", action=switch, default=True, help=kernels)
    add("--dry-run", action="store_true", help="print the cases' number and the time expected")
    return found


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {MOST_SECONDS}, got {text}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parser().parse_args(arguments)
    with leaving_at_once():  # --help does without torch
        from tlstm.bench.session import run
        from tlstm.bench.timing import DeviceLostError
    with (
        refusals(ValueError, OSError, DeviceLostError),
        interruptions("what was measured is recorded"),
    ):
        return run(options)
