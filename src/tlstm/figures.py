"""The pictures and the page of every experiment, made from the committed records alone.

`python -m tlstm.figures` redraws all experiments that have records: `results/<experiment>/` gets
a picture of each scale and task (SVG and PNG), the runs as one flat table `runs.csv`, and the page
`README.md`. The same records give the same bytes.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from tlstm import tables
from tlstm.bench import drawing as bench_drawing
from tlstm.bench import page as bench_page
from tlstm.bench import store as bench_store
from tlstm.drawing import figure4, style, sweep_figure
from tlstm.memory_cells import drawing as memory_drawing
from tlstm.memory_cells import page as memory_page
from tlstm.memory_cells import store as memory_store
from tlstm.page import page
from tlstm.record import Record, replace_file, sentence
from tlstm.results import latest, load

__all__ = ["EXPERIMENTS", "Experiment", "draw", "figure4", "sweep_figure"]


class Experiment(NamedTuple):
    """How the records of an experiment are shown.

    Attributes:
        title: of its page.
        figure: draws the records of one scale and task, given the published numbers too.
        command: makes its records.
    """

    title: str
    figure: Callable[[Sequence[Record], pd.DataFrame], Figure]
    command: str


def _sweep(along: str, records: Sequence[Record], _: pd.DataFrame) -> Figure:
    return sweep_figure(records, along)


EXPERIMENTS = {
    "fig4": Experiment(
        "Figure 4 and Table 2: addition and memorization", figure4, "make reproduce-fig4"
    ),
    "depth": Experiment(
        "Depth", partial(_sweep, "depth"), "python -m tlstm.sweep sweeps/depth.yaml"
    ),
    "width": Experiment(
        "Width: channels", partial(_sweep, "channels"), "python -m tlstm.sweep sweeps/width.yaml"
    ),
}
RUNTIME = bench_store.EXPERIMENT
COMMANDS = {name: experiment.command for name, experiment in EXPERIMENTS.items()}
COMMANDS[RUNTIME] = "make bench"
MEMORY_CELLS = memory_store.EXPERIMENT
COMMANDS[MEMORY_CELLS] = "python -m tlstm.memory_cells"


def save(figure: Figure, stem: Path) -> None:
    """Writes a figure as SVG and as PNG, with nothing in them that changes from day to day.

    Args:
        figure: made under `tlstm.drawing.style`.
        stem: the path without its suffix.
    """
    undated = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    for kind, metadata in undated.items():
        content = io.BytesIO()
        with style():
            figure.savefig(content, format=kind, metadata=metadata)
        replace_file(stem.with_name(f"{stem.name}.{kind}"), content.getvalue())


def draw(experiment: str, results_dir: Path) -> list[Path]:
    """Draws an experiment from its records and writes its page.

    Args:
        experiment: a name of `EXPERIMENTS`.
        results_dir: the directory of all results, with published.csv.

    Returns:
        The pictures without their suffixes; none where there are no records.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a record is not valid.
    """
    records = latest(load(results_dir, experiment))
    if not records:
        return []
    published = tables.read_published(results_dir / "published.csv")
    directory = results_dir / experiment
    pictures = []
    for scale, task in sorted({(record.scale, record.task) for record in records}):
        group = [record for record in records if (record.scale, record.task) == (scale, task)]
        pictures.append(directory / f"{scale}-{task}")
        save(EXPERIMENTS[experiment].figure(group, published), pictures[-1])
    runs = tables.run_table(records).to_csv(index=False, lineterminator="\n")
    replace_file(directory / "runs.csv", runs.encode())
    title, _, command = EXPERIMENTS[experiment]
    replace_file(directory / "README.md", page(records, published, title, command).encode())
    return pictures


def draw_runtime(results_dir: Path) -> list[Path]:
    """Draws the benchmark from its records and writes its page; as `draw`."""
    measurements = bench_store.latest(bench_store.load(results_dir))
    if not measurements:
        return []
    directory = results_dir / RUNTIME
    pictures = []
    for machine, shown in bench_drawing.machines(measurements).items():
        for name, figure in bench_drawing.pictures(machine, shown).items():
            pictures.append(directory / name)
            save(figure, pictures[-1])
    names = [picture.name for picture in pictures]
    replace_file(directory / "measurements.csv", bench_page.flat(measurements).encode())
    replace_file(directory / "README.md", bench_page.page(measurements, names).encode())
    return pictures


def draw_memory_cells(results_dir: Path) -> list[Path]:
    """Draws the memory cells that are stored and writes their page; as `draw`."""
    stored = memory_store.load(results_dir)
    directory = results_dir / MEMORY_CELLS
    for cells in stored:
        save(memory_drawing.figure(cells), directory / cells.name)
    if stored:
        replace_file(directory / "README.md", memory_page.page(stored).encode())
    return [directory / cells.name for cells in stored]


OTHERS = {RUNTIME: draw_runtime, MEMORY_CELLS: draw_memory_cells}  # not made of runs' records


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 where nothing could be drawn."""
    parser = argparse.ArgumentParser(prog="python -m tlstm.figures", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIRECTORY")
    parser.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help=f"{', '.join(COMMANDS)} (default: all that have records)",
    )
    chosen = parser.parse_args(arguments)
    try:
        return _draw_all(chosen.experiments, chosen.results)
    except (OSError, ValueError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 2


def _draw_all(experiments: Sequence[str], results_dir: Path) -> int:
    for name in experiments:
        if name not in COMMANDS:
            raise ValueError(f"EXPERIMENT must be one of {', '.join(COMMANDS)}, got {name}")
    drawn = {
        name: OTHERS[name](results_dir) if name in OTHERS else draw(name, results_dir)
        for name in experiments or COMMANDS
    }
    for pictures in drawn.values():
        for picture in pictures:
            print(f"drew {picture}.svg and .png")
    missing = [name for name, pictures in drawn.items() if not pictures]
    if missing and (experiments or len(missing) == len(drawn)):
        names = missing if experiments else missing[:1]
        raise ValueError(_nothing_to_draw(names, results_dir))
    return 0


def _nothing_to_draw(names: Sequence[str], results_dir: Path) -> str:
    stores = ", ".join(str(results_dir / name / "records.jsonl") for name in names)
    commands = " and ".join(f"`{COMMANDS[name]}`" for name in names)
    return f"there are no records in {stores}; make them with {commands}"


if __name__ == "__main__":
    sys.exit(main())
