"""Take the records of finished runs into the committed store: python -m tlstm.results collect.

`runs/<experiment>/<run>/record.json` goes into `results/<experiment>/records.jsonl`, one line
each, and the benchmark's measurements, `runs/runtime/*.jsonl`, into `results/runtime`.
`python -m tlstm.results copy` puts the committed records beside those of a store of one's own;
`python -m tlstm.results migrate` brings stores and run directories of format 1 to format 2.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tlstm.records import measurement as measurement_store
from tlstm.records.store import append, read_runs
from tlstm.utils import replace_file, run_main, sentence

PUBLISHED = "published.csv"


def collect(source: Path, results_dir: Path, experiments: Sequence[str] = ()) -> int:
    """Take the records of finished runs into the committed store and print how many are new.

    Returns:
        The exit code: 0 for success, 1 if some file was not a valid record and was left out.

    Raises:
        OSError, ValueError: nothing could be read or written; see `read_runs` and `append`.
    """
    records, problems = read_runs(source, experiments)
    for experiment in sorted({record.experiment for record in records}):
        group = [record for record in records if record.experiment == experiment]
        new = append(group, results_dir)
        print(
            f"{experiment}: {len(group)} records, {new} of them new in {results_dir / experiment}"
        )
    if not records:
        print(f"{source}: no finished run to collect")
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 1 if problems else 0


def collect_all(source: Path, results_dir: Path, experiments: Sequence[str] = ()) -> int:
    """Take in records of runs and the benchmark's measurements; as `collect`.

    Args:
        source: directory of runs, an archive of one, or a file of measurements.
        results_dir: the directory of all results.
        experiments: those to take in; "runtime" are the measurements.
    """
    runtime = measurement_store.EXPERIMENT
    of_runs = [name for name in experiments if name != runtime]
    if runtime in experiments or not experiments:
        found = measurement_store.read_all(source)
        if found:
            new = measurement_store.append(found, results_dir)
            print(f"{runtime}: {len(found)} records, {new} of them new in {results_dir / runtime}")
        elif runtime in experiments:
            raise ValueError(f"{source} holds no record of {runtime}")
    only_measurements = measurement_store.is_file(source) or runtime in experiments
    return collect(source, results_dir, of_runs) if of_runs or not only_measurements else 0


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


def migrate(runs: Path, results_dir: Path) -> int:
    """Bring run directories and stores to the format of today and print how many were not in it.

    Returns:
        The exit code: 0 for success, 1 if some could not be brought along.
    """
    from tlstm.training.migration import (
        migrate_all,  # torch and Hydra, which collecting does without
    )

    done, problems = migrate_all(runs, results_dir)
    print(f"{done} records and run directories brought to the format of today")
    for problem in problems:
        print(f"not brought along: {problem}", file=sys.stderr)
    return 1 if problems else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tlstm.results", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="collect|copy|migrate")
    command = commands.add_parser(
        "collect",
        help="take the records of finished runs into the committed store",
        epilog="exit code: 0 all taken in; 1 some files were not valid records and were left "
        "out; 2 nothing could be read or written",
    )
    command.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="SOURCE",
        help="directory of runs, a .tar.gz of one, or a file of the benchmark (default: runs)",
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
    command = commands.add_parser(
        "migrate", help="bring stores and run directories to the format of today"
    )
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIRECTORY")
    command.add_argument("--results", type=Path, default=Path("results"), metavar="DIRECTORY")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "copy":
            return copy(chosen.committed, chosen.results)
        if chosen.command == "migrate":
            return migrate(chosen.runs, chosen.results)
        return collect_all(chosen.runs, chosen.results, chosen.experiments)
    except (OSError, ValueError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run_main(main))
