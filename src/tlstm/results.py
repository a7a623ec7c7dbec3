"""Take the records of finished runs into the committed store: python -m tlstm.results collect.

`runs/<experiment>/<run>/record.json` goes into `results/<experiment>/records.jsonl`, one line
each, and the benchmark's measurements, `runs/runtime/*.jsonl`, into `results/runtime`.
`python -m tlstm.results copy` puts the committed records beside those of a store of one's own.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlstm.records import measurement
from tlstm.records.sources import read_source
from tlstm.records.store import append
from tlstm.utils import CommandParser, complain, printable, replace_file, run_main, sentence

PUBLISHED = "published.csv"


def collect(source: Path, results_dir: Path, experiments: Sequence[str] = ()) -> int:
    """Take records of runs and the benchmark's measurements into the committed store.

    Args:
        source: directory of runs, an archive of one, or a file of measurements.
        results_dir: the directory of all results.
        experiments: those to take in; "runtime" are the measurements.

    Returns:
        The exit code: 0 for success, 1 if something was left out, 2 if a store was left as it was.

    Raises:
        OSError, ValueError: the source cannot be read; see `read_source`.
    """
    found, failures = read_source(source, experiments), 0
    groups: dict[str, list[Any]] = {}
    for record in found.records:
        groups.setdefault(record.experiment, []).append(record)
    if found.measurements:
        groups[measurement.EXPERIMENT] = found.measurements
    for experiment, group in sorted(groups.items()):
        try:
            if experiment == measurement.EXPERIMENT:
                new = measurement.append(group, results_dir)
            else:
                new, left_out = append(group, results_dir)
                found.problems.extend(left_out)
        except (OSError, ValueError) as error:
            complain(sentence(error))
            failures += 1
            continue
        place = printable(results_dir / experiment)
        print(f"{experiment}: {len(group)} records, {new} of them new in {place}")
    if not groups:
        print(f"{printable(source)}: no finished run to collect")
    for problem in found.problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 2 if failures else 1 if found.problems else 0


def copy(committed: Path, results_dir: Path) -> int:
    """Copy committed records and numbers into a directory of one's own, where they lack.

    The pages that are drawn there show one's own runs beside the committed ones.

    Raises:
        OSError: a file could not be read or written.
    """
    replace_file(results_dir / PUBLISHED, (committed / PUBLISHED).read_bytes())
    for path in sorted(committed.glob("*/*.json*")):
        place = results_dir / path.relative_to(committed)
        there = place.read_bytes() if place.exists() else b""
        known = set(there.splitlines())
        lines = [line for line in path.read_bytes().splitlines() if line not in known]
        if lines and (path.suffix == ".jsonl" or not there):
            replace_file(place, there + b"".join(line + b"\n" for line in lines))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = CommandParser(prog="python -m tlstm.results", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="collect|copy")
    command = commands.add_parser(
        "collect",
        help="take the records of finished runs into the committed store",
        epilog="exit code: 0 all taken in; 1 some files were not valid records and were left "
        "out; 2 the source or a store could not be read or written",
    )
    command.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="SOURCE",
        help="directory of runs, an archive of one, or a file of the benchmark (default: runs)",
    )
    command.add_argument("--results", type=Path, default=Path("results"), metavar="DIRECTORY")
    command.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="those to take in (default: all but scratch)",
    )
    command = commands.add_parser(
        "copy", help="copy committed records where one's own are to be drawn beside them"
    )
    command.add_argument("--committed", type=Path, default=Path("results"), metavar="DIRECTORY")
    command.add_argument("--results", type=Path, required=True, metavar="DIRECTORY")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "copy":
            return copy(chosen.committed, chosen.results)
        return collect(chosen.runs, chosen.results, chosen.experiments)
    except (OSError, ValueError) as error:
        complain(sentence(error))
        return 2


if __name__ == "__main__":
    sys.exit(run_main(main))
