"""Ship a trained layer: python -m tlstm.export runs/fig4/addition-... model.safetensors.

The file holds the layer of a run's best checkpoint, what it is made with, its head and the record
of the run. `tlstm.evaluate` tests it, `tlstm.sample` writes text with it, and it is loaded with no
code of its own:

    from tlstm import TensorizedLSTM
    layer = TensorizedLSTM.from_file("model.safetensors")
    output, (h, c) = layer(x)
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlstm.training.trained_run import TrainedRun, read_run
from tlstm.utils import CommandParser, check_directory, printable, refusals, run_main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = CommandParser(
        prog="python -m tlstm.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("file", type=Path, metavar="FILE", help="such as model.safetensors")
    parser.add_argument(
        "--data", type=Path, metavar="PLACE", help="the data's directory or file, if elsewhere now"
    )
    chosen = parser.parse_args(arguments)
    with refusals(ValueError, OSError):
        check_directory(chosen.file)
        run = read_run(chosen.run, chosen.data)
        network = run.module.network
        network.core.to_file(chosen.file, network.head, about(run))
    name, size = type(network.core).__name__, chosen.file.stat().st_size
    loads = f"{name}.from_file({str(chosen.file)!r}) loads it"
    print(printable(f"{chosen.file}, {size:,} bytes: {loads}"))
    return 0


def about(run: TrainedRun) -> dict[str, Any]:
    """Return what a file says of its layer.

    Returns:
        record: of the run, without its learning curve; None if it is not finished.
        samples: training samples that the network has learnt from.
        tokens: the input tokens as the task writes them; None where it has features.
        alphabet: the byte that each token of a text stands for; None for other tasks.
    """
    data = run.data
    record = run.record and run.record.model_copy(update={"curve": []})
    alphabet = run.alphabet or data.alphabet
    names = [data.token_name(token) for token in range(data.input_size)]
    return {
        "record": record and record.model_dump(mode="json"),
        "samples": run.samples,
        "tokens": names if data.is_discrete else None,
        "alphabet": None if alphabet is None else [*alphabet],
    }


if __name__ == "__main__":
    sys.exit(run_main(main))
