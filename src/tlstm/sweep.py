"""Run sweep files here, with no server: python -m tlstm.sweep sweeps/depth.yaml task=memorization.

A recorded run is not trained again, an interrupted one goes on, and one that fails does not stop
the others.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tlstm.utils import CommandParser, interruptions, leaving_at_once, refusals, run_main

MOST_JOBS = 1_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0 when every run is recorded, 1 when some failed. A sweep that cannot be
        run ends the process with exit code 2, an interrupted one with 130.
    """
    options = parse(arguments)
    with leaving_at_once():  # --help does without these
        from rich.console import Console

        from tlstm.sweeping.planning import announcement, carry_out, make_plan
        from tlstm.train import outcome, title
    console = Console(markup=False, emoji=False, highlight=False)
    with refusals(ValueError, OSError):
        jobs = options.jobs, options.jobs_per_device
        plan = make_plan(options.files, options.overrides, *jobs, console)
        console.print(announcement(plan), soft_wrap=True)
    if options.dry_run or not plan.runs:
        return 0
    with interruptions("the same command goes on where the runs stopped"):
        failed = carry_out(plan, console, title, outcome)
    return 1 if failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line: files, `key=value` for all runs, options."""
    parser = CommandParser(prog="python -m tlstm.sweep", description=__doc__)
    parser.add_argument(
        "files", nargs="+", metavar="FILE|key=value", help="sweep files, and settings of every run"
    )
    parser.add_argument(
        "--jobs",
        type=_number,
        help="runs at a time, over all GPUs together, each on those with the fewest "
        "(as many as there are GPUs for, or else processor cores)",
    )
    parser.add_argument(
        "--jobs-per-device",
        type=_number,
        help="runs at a time on each GPU: small ones that leave it idle are trained faster "
        "together, but the runtimes in their records are then those of a shared GPU (1, unless "
        "--jobs is more than there are GPUs; given both, --jobs is the most of all together)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    options = parser.parse_intermixed_args(arguments)
    # A file's name may have the sign of a setting in it
    given = [text for text in options.files if "=" in text]
    options.overrides = [text for text in given if not os.path.isfile(text)]  # noqa: PTH113 (of any text)
    options.files = [Path(text) for text in options.files if text not in options.overrides]
    if not options.files or Path() in options.files:
        parser.error("name a sweep file, such as sweeps/depth.yaml")
    return options


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_JOBS:
        raise argparse.ArgumentTypeError(f"must be from 1 to {MOST_JOBS}, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_main(main))
