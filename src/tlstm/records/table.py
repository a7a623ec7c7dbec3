"""The words of tables of runs: tasks, settings, numbers, and the published numbers.

Pure functions of records, of rows of `tlstm.reporting.rows.run_table`, or of
`results/published.csv`. Accuracies are fractions in a row of a run.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tlstm.records.measures import original
from tlstm.records.models import MODELS
from tlstm.records.schema import Record

CONFIGURATIONS = tuple(MODELS)  # in the order of the figures; others that ran come after them
SCALES = ("paper", "short")  # in the order of the page; smoke is always last
PHRASES = {
    "addition": "addition of {digits}-digit integers in base {base}",
    "reversed_addition": (
        "addition of {digits}-digit integers, least significant digit first, in base {base}"
    ),
    "memorization": "memorization of {symbols} symbols from an alphabet of {alphabet}",
    "mnist": "sequential MNIST, 784 pixels",
    "permuted_mnist": "permuted MNIST, 784 pixels",
    "digits": "scikit-learn's digits, 64 pixels, in place of sequential MNIST",
    "permuted_digits": "scikit-learn's digits, 64 pixels, in place of permuted MNIST",
    "wikipedia": "Wikipedia, characters of enwik8",
    "wikipedia_sample": "the first 4,154,000 characters of enwik8, a 24th of it",
    "text_file": "characters of a file, in place of Wikipedia",
    "python_topics": "characters of Python's documentation, in place of Wikipedia",
}
TITLES = {  # of tasks whose names are not words
    "mnist": "Sequential MNIST",
    "permuted_mnist": "Permuted MNIST",
    "digits": "Digits, in place of sequential MNIST",
    "permuted_digits": "Permuted digits, in place of permuted MNIST",
    "wikipedia_sample": "A 24th of Wikipedia",
    "text_file": "A file, in place of Wikipedia",
    "python_topics": "Python's documentation, in place of Wikipedia",
}
# Sections of a configuration that decide what is learnt, and those of their leaves that do not.
DECIDING = ("task", "model", "initialization", "sampling", "training", "trainer")
NOT_DECIDING = (
    *("seed", "accelerator", "devices", "threads", "num_workers", "progress", "data_dir", "path"),
    "label",  # by which runs are grouped
)
OF_NETWORK = ("model.", "task.channels")  # which one model cannot have as another has it
OF_WAY = tuple(  # which the name of an initialization says
    f"initialization.{part}" for part in ("hidden_range", "input_range", "bias_range", "norm_gain")
)
# Experiments that are not the reproduction's
VARIED = ("width", "choices", "digits", "search", "recipe", "weights", "scratch")
MULTIPLES = {"K": 1_000, "M": 1_000_000}
UNKNOWN = "—"
LINE = ["model", "label", "depth", "channels", "variant"]
PUBLISHED_COLUMNS = ("table", "task", "model", "depth", "value", "samples", "parameters")
PUBLISHED_TASKS = {"pmnist": "permuted_mnist"}  # as published.csv calls them


class PublishedMark(NamedTuple):
    """A row of Table 2: accuracy in per cent after a number of training samples."""

    model: str
    depth: int | None
    samples: float
    accuracy: float


def people(number: float) -> str:
    """Return a count as people write it, to three digits: 54K, 1.05M, 960."""
    rounded = float(f"{number:.3g}")
    for sign, multiple in reversed(MULTIPLES.items()):
        if rounded >= multiple:
            return f"{rounded / multiple:.4g}{sign}"
    return f"{rounded:.4g}"


def number(text: str) -> float:
    """Return the number in a published cell: "298K" is 298000, ">99" is 99."""
    digits = text.strip().lstrip(">≈")
    sign = digits[-1:].upper()
    return float(digits[:-1]) * MULTIPLES[sign] if sign in MULTIPLES else float(digits)


def read_published(path: Path) -> pd.DataFrame:
    """Return the published numbers as text, empty where the paper gives none; tasks renamed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a table; the message names the file.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if missing := [name for name in PUBLISHED_COLUMNS if name not in table]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        for text in (*table["value"], *filter(None, table["samples"])):
            number(text)
        for text in filter(None, table["depth"]):
            int(text)
    except ValueError as error:
        raise ValueError(f"{path} is no table of published numbers: {error}") from error
    return table.replace({"task": PUBLISHED_TASKS})


def published_marks(published: pd.DataFrame, task: str) -> list[PublishedMark]:
    """Return a task's rows with a number of samples, as points of a learning curve."""
    rows = published[(published["task"] == task) & (published["samples"] != "")]
    return [
        PublishedMark(model, int(depth) if depth else None, number(samples), number(value))
        for model, depth, samples, value in zip(
            rows["model"], rows["depth"], rows["samples"], rows["value"], strict=True
        )
    ]


def model_order(model: str) -> tuple[int, str]:
    """Return a key that sorts configurations as the paper does."""
    known = model in CONFIGURATIONS
    return (CONFIGURATIONS.index(model) if known else len(CONFIGURATIONS), model)


def scale_order(scale: str) -> tuple[int, str]:
    """Return a key that sorts scales from the paper's down; smoke is last."""
    if scale == "smoke":
        return len(SCALES) + 1, scale
    return (SCALES.index(scale) if scale in SCALES else len(SCALES)), scale


def describe_task(record: Record) -> str:
    """Return the task and its size in words: "addition of 3-digit integers"."""
    task: Any = record.config.get("task", {})
    try:
        phrase = PHRASES[record.task].format_map(task)
    except KeyError:
        return record.task
    return phrase.removesuffix(" in base 10")


def describe_hardware(row: Mapping[Hashable, Any]) -> str:
    """Return the devices of a frame's row: "2 x NVIDIA H200", or a processor and its threads."""
    device, threads = row["device"], row["threads"]
    if row["devices"] > 1:
        return f"{row['devices']} x {device}"
    if device.startswith("NVIDIA"):
        return str(device)
    return f"{device} ({threads} thread{'s' if threads > 1 else ''})"


def sees_ahead(record: Record) -> bool:
    """Return True if a run's predictions have seen what they predict.

    At L > 1 the mean that LN takes over all locations comes from some that have read later
    characters. Other tasks ask for nothing that is read later.
    """
    model: Any = record.config.get("model", {})
    normalization = model.get("core", {}).get("normalization")
    return original(record.task) == "wikipedia" and normalization == "layer" and record.depth > 1


def order(record: Record) -> tuple[object, ...]:
    """Return a key that sorts runs as the paper does: by scale, task, model and size."""
    place = scale_order(record.scale), record.task, model_order(record.model)
    return *place, record.label, record.depth, record.channels, record.seed, record.started


def differing_settings(
    records: Sequence[Record], reference_runs: Sequence[Record] = ()
) -> list[dict[str, str]]:
    """Return the settings by which each run differs, by the last part of their names.

    A run is compared with those of its scale and task; in settings of the model only with those of
    its name, L and M, and in those that an initialization's name says only with those of that name.
    So only runs that differ in nothing but their seed have the same. What all runs of the
    reproduction have is left out.

    Args:
        records: each run once.
        reference_runs: others that they are compared with.
    """
    members = Counter[tuple[object, ...]]()
    alike = Counter[tuple[object, ...]]()
    reproduced: dict[tuple[object, ...], set[str]] = {}
    runs = []
    for record in (*records, *reference_runs):
        given, task = settings(record), (record.scale, record.task)
        network = *task, record.label, record.depth, record.channels
        way = *task, given.get("initialization")
        members.update([task, network, way])
        run = {}
        for name, value in given.items():
            group = network if name.startswith(OF_NETWORK) else way if name in OF_WAY else task
            run[group, name] = str(value)
        alike.update(run.items())
        for key, value in run.items() if record.experiment not in VARIED else ():
            reproduced.setdefault(key, set()).add(value)
        runs.append(run)
    return [
        {
            name.rpartition(".")[2]: value
            for (group, name), value in run.items()
            if alike[(group, name), value] < members[group]
            and reproduced.get((group, name)) != {value}
        }
        for run in runs[: len(records)]
    ]


def settings(record: Record) -> dict[str, object]:
    """Return the settings that decide what a run learns, by their dotted names; None is none."""
    leaves = (_leaves(record.config.get(section), section) for section in DECIDING)
    given = chain.from_iterable(leaves)
    return {
        name.replace("initialization.name", "initialization"): value
        for name, value in given
        if value is not None and name != "sampling.name"  # its settings say it
    }


def _leaves(node: object, name: str) -> Iterable[tuple[str, object]]:
    if isinstance(node, dict):
        for key, value in sorted(node.items()):
            if key not in NOT_DECIDING:
                yield from _leaves(value, f"{name}.{key}")
    else:
        yield name, node


def lines(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return groups of runs that differ in nothing but their seed, in the table's order."""
    return [runs for _, runs in table.groupby(LINE, sort=False)]


def line_names(table: pd.DataFrame, along: str) -> list[str]:
    """Return the name of every run's line in a picture against L ("depth") or M ("channels").

    The other one is named where a model has several, and so are the settings of `variant`.
    """
    other, symbol = {"depth": ("channels", "M"), "channels": ("depth", "L")}[along]
    several = table.groupby("model")[other].transform("nunique") > 1
    parts = zip(table["label"], several, table[other], table["variant"], strict=True)
    return [
        f"{name}{f', {symbol} = {size}' if sizes else ''}{f' ({variant})' if variant else ''}"
        for name, sizes, size, variant in parts
    ]


def label(runs: pd.DataFrame) -> str:
    """Return the paper's name of such a group, with the settings that differ."""
    name, variant = runs["label"].iloc[0], runs["variant"].iloc[0]
    return f"{name} ({variant})" if variant else str(name)


def samples_text(runs: pd.DataFrame) -> str:
    """Return the samples to the threshold: mean and range over seeds, and the seeds without."""
    passed = runs["samples_to_threshold"].dropna()
    missed = runs[runs["samples_to_threshold"].isna()]
    bound = f"not within {people(missed['samples'].min())}" if len(missed) else ""
    if passed.empty:
        return bound
    text = people(passed.mean())
    if len(passed) > 1:
        text += f" ({people(passed.min())} to {people(passed.max())})"
    return f"{text}; {len(missed)} of {len(runs)} {bound}" if bound else text


def solved_text(runs: pd.DataFrame) -> str:
    """Return which runs passed the threshold: "yes", "no" or "2 of 3 seeds"."""
    passed = int(runs["samples_to_threshold"].notna().sum())
    if passed in (0, len(runs)):
        return "yes" if passed else "no"
    return f"{passed} of {len(runs)} seeds"


def is_solvable(table: pd.DataFrame) -> bool:
    """Return True if runs of one task end at the threshold; at 100% none can pass it."""
    return float(table["threshold"].iloc[0]) < 1


def percent(fraction: float) -> str:
    """Return a fraction in per cent: "99%"."""
    return f"{100 * fraction:g}%"


def sizes(table: pd.DataFrame) -> str:
    """Return tasks, sizes and widths: "addition of 15-digit integers, M = 400"."""
    return distinct(
        f"{task}, M = {distinct(runs['channels'], ', ')}"
        for task, runs in table.groupby("task_size", sort=False)
    )


def distinct(values: Iterable[object], between: str = "; ") -> str:
    """Join the different values in the order in which they first come."""
    return between.join(dict.fromkeys(str(value) for value in values))
