"""Ship a trained layer: python -m tlstm.export runs/fig4/addition-... model.safetensors.

The file holds the layer of a run's best checkpoint, what it is made with, its head, and where it
comes from. It is loaded with no configuration and no code of the file's own:

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
from tlstm.utils import refusals, run_main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
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
        run = read_run(chosen.run, chosen.data)
        network = run.module.network
        network.core.to_file(chosen.file, network.head, about(run))
    name, size = type(network.core).__name__, chosen.file.stat().st_size
    print(f"{chosen.file}, {size:,} bytes: {name}.from_file({str(chosen.file)!r}) loads it")
    return 0


def about(run: TrainedRun) -> dict[str, Any]:
    """Return the provenance of a layer and its input symbols."""
    config, record, data = run.config, run.record, run.data
    names = [data.token_name(token) for token in range(data.input_size)]
    return {
        "task": config.task.name,
        "scale": config.scale.name,
        "configuration": config.model.label,
        "seed": config.seed,
        "samples": run.samples,
        "tokens": names if data.is_discrete else None,
        "run": record.identifier if record else None,
        "commit": record.commit if record else None,
        "test": record.test if record else None,
    }


if __name__ == "__main__":
    sys.exit(run_main(main))
