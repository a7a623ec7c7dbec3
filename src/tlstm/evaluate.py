"""Test a trained model again: python -m tlstm.evaluate runs/fig4/addition-....

The best network of a run, from its directory or from a file of weights, is tested on every test
sample, on one device and with the run's own precision, and the result is compared with its record.
Nothing that is read is executed.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlstm.utils import CommandParser, interruptions, leaving_at_once, refusals, run_main

if TYPE_CHECKING:  # they take seconds to import, and --help takes none of them
    from tlstm.records.schema import Record
    from tlstm.training.trained_run import TrainedRun

DEVICES = {"cpu": "cpu", "cuda": "gpu"}  # as Lightning names them
ROUNDING = 1e-3  # relative; another device or number of threads sums up in another order


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 1 if the result is not the recorded one."""
    parser = CommandParser(
        prog="python -m tlstm.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit code: 0 as recorded, or not recorded yet; 1 other than recorded; "
        "2 it could not be tested",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run's directory, or weights of tlstm.export"
    )
    parser.add_argument(
        "--data", type=Path, metavar="PLACE", help="the data's directory or file, if elsewhere now"
    )
    parser.add_argument(
        "--device", choices=DEVICES, help="to test on (that of the run, where there is one)"
    )
    chosen = parser.parse_args(arguments)

    with leaving_at_once():
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        from tlstm.training.trained_run import read_run
    with (
        refusals(ValueError, OSError, MisconfigurationException),
        interruptions("nothing was written"),
    ):
        run = read_run(chosen.run, chosen.data)
        print(introduction(run), flush=True)
        metrics = evaluate(run, chosen.device)
    print(report(metrics, run.record))
    return 0 if run.record is None or is_recorded(metrics, run.record) else 1


def evaluate(run: "TrainedRun", device: str | None = None) -> dict[str, float]:
    """Return the test metrics of a run's best network, by their names in a record.

    Args:
        run: with its network and data.
        device: "cpu" or "cuda"; None for that of the run, or another one where it is not there.

    Raises:
        OSError, ValueError: the data cannot be read, or there is no such device.
        MisconfigurationException: the machine lacks what the run's precision needs.
    """
    from tlstm.training.run import make_trainer, quiet_lightning, set_up_torch

    if device is not None:
        run.config.trainer.accelerator = DEVICES[device]
    elif run.config.trainer.accelerator == "gpu":
        run.config.trainer.accelerator = "auto"  # here there may be none
    set_up_torch(run.config)
    with quiet_lightning():
        (metrics,) = make_trainer(run.config, []).test(run.module, run.data, verbose=False)
    return {name.removeprefix("test/"): float(value) for name, value in metrics.items()}


def introduction(run: "TrainedRun") -> str:
    """Return the tested run in words."""
    config = run.config
    return (
        f"{config.task.name}, {config.model.label}, L={config.model.depth}, seed {config.seed}, "
        f"{config.scale.name} scale: the best network, after {run.samples:,} training samples"
    )


def report(metrics: Mapping[str, float], record: "Record | None") -> str:
    """Return a line for each metric with the recorded one."""
    if record is None:
        lines = [f"test {name} {value:.6g}" for name, value in metrics.items()]
        return "\n".join([*lines, "The run is not finished: there is no record to compare with."])
    return "\n".join(
        f"test {name} {value:.6g}, recorded: {_text(record.test.get(name))}"
        for name, value in metrics.items()
    )


def is_recorded(metrics: Mapping[str, float], record: "Record") -> bool:
    """Return True if metrics are the recorded ones, but for rounding."""
    return metrics.keys() == record.test.keys() and all(
        _same(value, record.test[name]) for name, value in metrics.items()
    )


def _same(value: float, recorded: float | None) -> bool:
    """Compare with a recorded number, which is None if it was not finite."""
    if recorded is None or not math.isfinite(value):
        return recorded is None and not math.isfinite(value)
    return math.isclose(value, recorded, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _text(recorded: float | None) -> str:
    return "not finite" if recorded is None else f"{recorded:.6g}"


if __name__ == "__main__":
    sys.exit(run_main(main))
