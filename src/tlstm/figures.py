"""The pictures and the page of every experiment, made from the committed records alone.

`python -m tlstm.figures` redraws everything: `results/<experiment>/` gets a picture of each scale
and task (SVG and PNG), the runs as one flat table `runs.csv`, and the page `README.md`; those of
the paper's figures and tables that nothing was measured for yet get a page that says so. The same
records give the same bytes.
"""

import io
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tlstm.records import measurement as bench_store
from tlstm.records import memory_cells as memory_store
from tlstm.records import table as tables
from tlstm.records.schema import Record
from tlstm.records.store import latest, load
from tlstm.reporting import memory_cells, pages, rows, rule, runtime, runtime_pictures
from tlstm.reporting.learning_curves import learning_curves
from tlstm.reporting.pages import Experiment, Pictured
from tlstm.reporting.positions import positions_figure
from tlstm.reporting.search import search_figure
from tlstm.reporting.settings import settings_figure
from tlstm.reporting.style import style
from tlstm.reporting.sweeps import ablation_figure, sweep_figure
from tlstm.utils import CommandParser, complain, printable, replace_file, run_main, sentence

PAGE = "README.md"
MAKE, SWEEP = "make reproduce-{}", "python -m tlstm.sweep sweeps/{}.yaml"
SWEEPS = "python -m tlstm.sweep sweeps/{}/*.yaml"
DIGITS = "python -m tlstm.sweep sweeps/choices/{}.yaml"
SEARCH = "python -m tlstm.sweep sweeps/choices/addition-{}.yaml"
EXPERIMENTS = {
    "fig3": Experiment(
        "Figure 3: Wikipedia",
        MAKE,
        lambda records, _, times: sweep_figure(records, "depth", times),
        "table1",
        includes=("table1",),
    ),
    "fig4": Experiment(
        "Figure 4: addition and memorization", MAKE, learning_curves, "table2", includes=("table2",)
    ),
    "fig5": Experiment(
        "Figure 5: sequential and permuted MNIST",
        MAKE,
        learning_curves,
        "table3",
        includes=("table3",),
    ),
    "table1": Experiment("Table 1: Wikipedia", MAKE, None, "table1", "fig3"),
    "table2": Experiment("Table 2: addition and memorization", MAKE, None, "table2", "fig4"),
    "table3": Experiment("Table 3: sequential and permuted MNIST", MAKE, None, "table3", "fig5"),
    "depth": Experiment(
        "Depth", SWEEP, lambda records, _, times: sweep_figure(records, "depth", times)
    ),
    "width": Experiment(
        "Width: channels",
        SWEEP,
        lambda records, _, times: sweep_figure(records, "channels", times),
    ),
    "choices": Experiment(
        "What the paper leaves open",
        SWEEPS,
        lambda records, published, _: settings_figure(records, published),
        "table2",
        reference_runs=("fig4", "table2"),
        section=rule.section,
    ),
    "digits": Experiment(
        "Addition, digit by digit", DIGITS, lambda records, *_: positions_figure(records)
    ),
    "search": Experiment(
        "Addition: a random search", SEARCH, lambda records, *_: search_figure(records)
    ),
    "recipe": Experiment(
        "Beyond the paper: fewer samples",
        SWEEPS,
        lambda records, published, _: settings_figure(records, published),
        "table2",
        reference_runs=("fig4", "table2"),
    ),
    "weights": Experiment("Weights to use", SWEEP),
    "ablation": Experiment(
        "Ablation: each part with and without the others",
        SWEEP,
        lambda records, _, times: ablation_figure(records, times),
    ),
}
RUNTIME = bench_store.EXPERIMENT
COMMANDS = {name: shown.command.format(name) for name, shown in EXPERIMENTS.items()}
COMMANDS[RUNTIME] = "make bench"
MEMORY_CELLS = memory_store.EXPERIMENT
TITLES = {RUNTIME: "Runtime", MEMORY_CELLS: "Figure 6: what the memory cell holds"}
COMMANDS[MEMORY_CELLS] = "python -m tlstm.memory_cells"


def save(figure: Figure, stem: Path) -> None:
    """Write a figure as SVG and as PNG, with nothing in them that changes from day to day.

    Args:
        figure: made under `tlstm.reporting.style.style`.
        stem: the path without its suffix.
    """
    undated = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    for kind, metadata in undated.items():
        content = io.BytesIO()
        with style():
            figure.savefig(content, format=kind, metadata=metadata)
        replace_file(stem.with_name(f"{stem.name}.{kind}"), content.getvalue())


def draw(name: str, results_dir: Path) -> list[Path]:
    """Draw an experiment from its records and write its page.

    Where nothing was measured yet, the page has the published rows and says so.

    Args:
        name: of `EXPERIMENTS`.
        results_dir: the directory of all results, with published.csv.

    Returns:
        The pictures without their suffixes, and the page; none where there are neither records
        nor published rows.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a record is not valid.
    """
    shown, directory = EXPERIMENTS[name], results_dir / name
    own = load(results_dir, name)
    own += _alike(own, shown.includes, results_dir)
    if shown.shown_by:
        elsewhere = set(map(_network, load(results_dir, shown.shown_by)))
        own = [record for record in own if _network(record) not in elsewhere]
    if not own and not shown.published:
        return []
    published = tables.read_published(results_dir / "published.csv")
    published = published[published["table"] == shown.published]
    times = rows.benchmark_times(bench_store.latest(bench_store.load(results_dir)))
    reference_runs = latest(_alike(own, shown.reference_runs, results_dir))
    drawn = latest([*own, *reference_runs])
    pictures = (
        draw_pictures(shown.figure, drawn, published, times, directory) if shown.figure else []
    )
    if own:
        runs = rows.run_table(latest(own), reference_runs)
        replace_file(directory / "runs.csv", rows.runs_csv(runs).encode())
    names = {picture.name for picture in pictures}
    text = pages.experiment_page(name, shown, own, published, times, names, reference_runs)
    if shown.section:
        every = [load(results_dir, other) for other in (name, *shown.reference_runs)]
        text += "\n\n" + shown.section(list(itertools.chain.from_iterable(every)), published)
    replace_file(directory / PAGE, text.encode())
    return [*pictures, directory / PAGE]


def _network(record: Record) -> tuple[str, str, str, int]:
    return record.scale, record.task, record.model, record.depth


def _alike(
    records: Sequence[Record], experiments: Iterable[str], results_dir: Path
) -> list[Record]:
    """Return runs of other experiments with the task, model and depth of one of these."""
    networks = set(map(_network, records))
    others = itertools.chain.from_iterable(load(results_dir, name) for name in experiments)
    return [other for other in others if _network(other) in networks]


def draw_pictures(
    figure: Pictured,
    records: Sequence[Record],
    published: pd.DataFrame,
    times: pd.DataFrame,
    directory: Path,
) -> list[Path]:
    """Draw a picture of each scale and task; return them without their suffixes."""
    pictures = []
    for scale, task in sorted({(record.scale, record.task) for record in records}):
        group = [record for record in records if (record.scale, record.task) == (scale, task)]
        pictures.append(directory / f"{scale}-{task}")
        save(figure(group, published, times), pictures[-1])
    return pictures


def draw_runtime(results_dir: Path) -> list[Path]:
    """Draw the benchmark from its records and write its page; as `draw`."""
    measurements = bench_store.latest(bench_store.load(results_dir))
    if not measurements:
        return []
    directory = results_dir / RUNTIME
    pictures = []
    for machine, shown in runtime.machines(measurements).items():
        for name, figure in runtime_pictures.pictures(machine, shown).items():
            pictures.append(directory / name)
            save(figure, pictures[-1])
    names = [picture.name for picture in pictures]
    content = runtime.flat(measurements).to_csv(index=False, lineterminator="\n")
    replace_file(directory / "measurements.csv", content.encode())
    replace_file(directory / PAGE, pages.runtime_page(measurements, names).encode())
    return pictures


def draw_memory_cells(results_dir: Path) -> list[Path]:
    """Draw the memory cells that are stored and write their page; as `draw`."""
    stored = memory_store.load(results_dir)
    directory = results_dir / MEMORY_CELLS
    for cells in stored:
        save(memory_cells.figure(cells), directory / cells.name)
    if stored:
        replace_file(directory / PAGE, memory_cells.page(stored).encode())
    return [directory / cells.name for cells in stored]


def draw_front(results_dir: Path) -> list[Path]:
    """Write the front page of all results and the README's table, where it has markers for it.

    Returns:
        The files that were written; none where there are no records.
    """
    stores = (load(results_dir, name) for name in EXPERIMENTS)
    records = list(itertools.chain.from_iterable(stores))
    if not records:
        return []
    measurements = bench_store.latest(bench_store.load(results_dir))
    published = tables.read_published(results_dir / "published.csv")
    found = pages.all_results(records, measurements, published)
    titles = {name: shown.title for name, shown in EXPERIMENTS.items()} | TITLES
    drawn = {name for name in titles if (results_dir / name / PAGE).exists()}
    replace_file(results_dir / PAGE, pages.front_page(found, titles, drawn).encode())
    readme = results_dir.absolute().parent / PAGE
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    block = pages.between_markers(text, pages.glance(found))
    if block == text:
        return [results_dir / PAGE]
    replace_file(readme, block.encode())
    return [results_dir / PAGE, readme]


FRONT = "the front page"
OTHERS = {RUNTIME: draw_runtime, MEMORY_CELLS: draw_memory_cells, FRONT: draw_front}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 where nothing could be drawn."""
    parser = CommandParser(prog="python -m tlstm.figures", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIRECTORY")
    parser.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help=f"{', '.join(COMMANDS)} (default: all that there is something to show of)",
    )
    chosen = parser.parse_args(arguments)
    try:
        return _draw_all(chosen.experiments, chosen.results)
    except ValueError as error:
        complain(sentence(error))
        return 2


def _draw_all(experiments: Sequence[str], results_dir: Path) -> int:
    """Draw the named experiments, or all and the front page; what fails does not keep the others.

    Returns:
        The exit code: 2 where a page could not be drawn.
    """
    for name in experiments:
        if name not in COMMANDS:
            raise ValueError(f"EXPERIMENT must be one of {', '.join(COMMANDS)}, got {name}")
    names = list(experiments) or [*COMMANDS, FRONT]
    drawn: dict[str, list[Path]] = {}
    failed: dict[str, list[str]] = {}  # pages by what was wrong
    for name in names:
        try:
            drawn[name] = OTHERS[name](results_dir) if name in OTHERS else draw(name, results_dir)
        except (OSError, ValueError) as error:
            failed.setdefault(sentence(error), []).append(name)
            continue
        for picture in drawn[name]:
            shown = printable(picture)
            print(f"wrote {shown}" if picture.name == PAGE else f"drew {shown}.svg and .png")
    missing = [name for name, pictures in drawn.items() if not pictures]
    if missing and (experiments or len(missing) == len(names)):
        failed[_nothing_to_draw(missing if experiments else missing[:1], results_dir)] = []
    for said, pages_of in failed.items():
        complain(f"{said}; not drawn: {', '.join(pages_of)}" if pages_of else said)
    return 2 if failed else 0


def _nothing_to_draw(names: Sequence[str], results_dir: Path) -> str:
    stores = ", ".join(str(results_dir / name / "records.jsonl") for name in names)
    commands = " and ".join(f"`{COMMANDS[name]}`" for name in names)
    return f"there are no records in {stores}; make them with {commands}"


if __name__ == "__main__":
    sys.exit(run_main(main))
