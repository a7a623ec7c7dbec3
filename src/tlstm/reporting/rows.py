"""The rows of every table on a page: measured, published, and one compared with the other.

Pure functions of records and of the rows of published.csv, to text; a dash is a number that is not
known. Accuracies are fractions in a record and per cent in a row.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tlstm.records import table as tables
from tlstm.records.measurement import Measurement
from tlstm.records.measures import measure_of
from tlstm.records.schema import Record
from tlstm.records.store import frame
from tlstm.records.table import UNKNOWN, number, people, percent
from tlstm.reporting.runtime import fastest, groups, ours

Row = dict[str, str]
Published = Mapping[Hashable, str]  # a row of `tables.read_published`

PUBLISHED_SOLVED = 99.0  # per cent, the accuracy that counts as solved in Table 2
COUNTERPARTS = {  # the models here that a published row is compared with
    "Stacked LSTM": ["slstm"],
    "Grid LSTM": ["grid_lstm_tied", "grid_lstm_untied"],
    "3D tLSTM+CN": ["tlstm_3d_cn"],
}
CONFIGURATION = ["scale", "task", "model", "depth", "channels", "batch_size", "hardware"]
TIMES = [*CONFIGURATION, "microseconds", "benchmark"]
# Tasks of the same sizes, so of the same runtime
SAME_SIZES = {"mnist": "permuted_mnist", "wikipedia": "wikipedia_sample"}
FACTOR = 2.0  # between numbers of samples that count as the same [ours]
MARGINS = {"accuracy": 0.3, "bits per character": 0.01}  # between results that count as the same
PHRASES = {  # of settings whose value needs more than their last name; {} is the value
    "initialization": "{}",
    "hidden_range": "weights ±{}",
    "input_range": "{} input",
    "bias_range": "biases ±{}",
    "scale": "weights × {}",
    "max_samples": "{} samples",
    "max_zero_fraction": "up to {} zeros",
    "min_digits": "{} or more digits",
    "warmup_samples": "warm-up {}",
    "batch_size": "batch {}",
    "gradient_clip": "clip {}",
    "alignment": "aligned {}",
    "skew": "digits skewed by {}",
    "skew_samples": "until {}",
    "skew_accuracy": "until accuracy {}",
    "distinct_samples": "{} distinct samples",
    "operands": "{} operands",
    "loss": "loss over {}",
    "precision": "{}",
}
VALUES = {
    "normal_input_zero_bias": "normal input, zero bias",
    "32-true": "float32",
    "16-mixed": "float16",
    "bf16-mixed": "bfloat16",
}
FORMS = {
    "max_samples": people,
    "warmup_samples": people,
    "skew_samples": people,
    "distinct_samples": people,
    "max_zero_fraction": percent,
    "skew_accuracy": percent,
}
BUDGET = "max_samples"


class Bold(str):
    """Text of a cell that stands out; like any other where a format has no bold."""


def named(settings: Mapping[str, str]) -> str:
    """Return a run's settings in short, such as "torch7 × 3, learning rate 0.002".

    Args:
        settings: values by the last part of the settings' names.
    """
    shown = {name: _value(name, value) for name, value in settings.items()}
    if "initialization" in shown and "scale" in shown:
        factor = shown.pop("scale")
        shown["initialization"] += f" × {factor}" if factor != "1" else ""
    return ", ".join(
        PHRASES.get(name, f"{name.replace('_', ' ')} {{}}").format(value)
        for name, value in shown.items()
    )


def _value(name: str, value: str) -> str:
    try:
        return FORMS.get(name, "{:g}".format)(float(value))
    except ValueError:
        return VALUES.get(value, value.replace("_", " "))


def run_table(
    records: Sequence[Record],
    reference_runs: Sequence[Record] = (),
    times: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return a row for every run, in the order of the paper; the columns alone if there are none.

    Columns are those of `tlstm.records.store.frame`, and: `hardware`; `task_size`, the task in
    words; `settings`, those by which a run differs from others; `sees_ahead`; `versions` of the
    packages; `variant`, the settings in words, and `choice`, the same without the largest number of
    samples; `batch_size`; `microseconds` per timestep of a batch, forward and backward, by the
    benchmark where it measured the same on the same device, else by the run itself; `benchmark`,
    whether it is by the benchmark.

    Args:
        records: each run once.
        reference_runs: runs that get no row, from which the settings of the others are named.
        times: rows of `benchmark_times`.
    """
    ordered = sorted(records, key=tables.order)
    differing = tables.differing_settings(ordered, reference_runs)
    table = frame(ordered)
    table["hardware"] = [tables.describe_hardware(row) for row in table.to_dict("records")]
    table["task_size"] = [tables.describe_task(record) for record in ordered]
    table["settings"] = [
        "; ".join(f"{name}={value}" for name, value in each.items()) for each in differing
    ]
    table["sees_ahead"] = [tables.sees_ahead(record) for record in ordered]
    table["versions"] = [
        ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))
        for record in ordered
    ]
    table["variant"] = [named(each) for each in differing]
    table["choice"] = [named({k: v for k, v in each.items() if k != BUDGET}) for each in differing]
    table["batch_size"] = [_batch_size(record) for record in ordered]
    own = 1000 * table["milliseconds_per_timestep"] * table["batch_size"]
    if times is None or times.empty:
        return table.assign(microseconds=own, benchmark=False)
    known = times.drop_duplicates(CONFIGURATION).set_index(CONFIGURATION)["microseconds"]
    found = known.reindex(pd.MultiIndex.from_frame(table[CONFIGURATION])).to_numpy(dtype=float)
    microseconds = pd.Series(found, table.index).fillna(own)
    return table.assign(microseconds=microseconds, benchmark=~np.isnan(found))


def runs_csv(table: pd.DataFrame) -> str:
    """Return the rows of `run_table` as the file runs.csv, settings by their own names."""
    written = table.loc[:, :"versions"].rename(columns={"settings": "variant"})
    return written.to_csv(index=False, lineterminator="\n")


def _batch_size(record: Record) -> int:
    training: Any = record.config.get("training", {})
    return int(training.get("batch_size", 1))


def benchmark_times(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Return the benchmark's runtime over L, as rows of `TIMES`.

    Microseconds are of one forward and backward pass per timestep of a batch, by the fastest of
    the layer's paths, and by the fastest nn.LSTM for a stack. Scale is "paper" on a GPU, and
    "quick" where sequences were short or there was none.
    """
    rows = []
    for group in groups(measurements, "tasks"):
        case, first = group[0].case, group[0]
        best = fastest(group, ["nn.LSTM"]) if case.is_stack else ours(group)
        if best is not None and best.microseconds is not None:
            scale = "paper" if first.on_gpu and not first.quick else "quick"
            size = case.model, case.depth, case.channels, case.batch_size
            measured = *size, first.hardware.device, best.microseconds, True
            other = SAME_SIZES.get(case.task) if scale == "paper" else None
            rows += [(scale, task, *measured) for task in (case.task, other) if task]
    return pd.DataFrame(rows, columns=TIMES)


def timed(table: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return the runs whose runtimes can be compared, and whether others were timed elsewhere.

    They are those that the benchmark measured, where there are some, since runs may have shared
    their device; and of them those on the hardware with the most.
    """
    runs = table[table["benchmark"]] if table["benchmark"].any() else table
    same = runs["hardware"] == runs["hardware"].mode().iloc[0]
    return runs[same], not same.all()


def quality(runs: pd.DataFrame) -> pd.Series:
    """Return the measure of every run's task on the test samples, else its best on validation."""
    measure = measure_of(str(runs["task"].iloc[0]))
    return measure.of(runs, "test").fillna(measure.of(runs, "best"))


def mean_range(values: pd.Series, digits: int) -> str:
    """Return mean and range over seeds, "99.4 (99.1 to 99.8)"; a dash if nothing was measured."""
    known = values.dropna().astype(float)
    if known.empty:
        return UNKNOWN
    mean, low, high = (f"{value:.{digits}f}" for value in (known.mean(), known.min(), known.max()))
    return mean if low == high else f"{mean} ({low} to {high})"


def outcomes(runs: pd.DataFrame) -> str:
    """Return the ways in which runs ended: "solved", or "2 solved, 1 budget spent"."""
    counts = Counter(runs["outcome"])
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())


def task_title(task: str) -> str:
    """Return a task's name for people."""
    return tables.TITLES.get(task, task.replace("_", " ").capitalize())


def minutes(runs: pd.DataFrame) -> str:
    """Return the device minutes of some runs altogether."""
    return f"{runs['device_seconds'].sum() / 60:.1f}"


def columns(task: str, samples: str = "samples", time: str = "GPU minutes") -> list[str]:
    """Return the heads of a table of runs."""
    quality = f"test {measure_of(task).title}"
    ends = ("µs per timestep", "how it ended", time)
    return ["configuration", "L", "seeds", quality, samples, *ends]


def measured(table: pd.DataFrame) -> list[tuple[pd.DataFrame, Row]]:
    """Return a row for each group of runs of a scale and task that differ only in their seed."""
    heads = columns(str(table["task"].iloc[0]), samples_title(table), minutes_title(table))
    widths = table["channels"].nunique() > 1
    return [
        (runs, dict(zip(heads, _measured_cells(runs, widths), strict=True)))
        for runs in tables.lines(table)
    ]


def _measured_cells(runs: pd.DataFrame, widths: bool) -> list[str]:
    first, hardware = runs.iloc[0], runs["hardware"]
    same_machine = runs[hardware == hardware.mode().iloc[0]]
    return [
        tables.label(runs) + (f", M = {first['channels']}" if widths else ""),
        str(first["depth"]),
        ", ".join(str(seed) for seed in runs["seed"]),
        mean_range(quality(runs), measure_of(first["task"]).digits),
        tables.samples_text(runs) if tables.is_solvable(runs) else people(runs["samples"].mean()),
        microseconds(same_machine["microseconds"].mean()),
        outcomes(runs),
        minutes(runs),
    ]


def microseconds(value: float) -> str:
    """Return a time to three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def samples_title(runs: pd.DataFrame) -> str:
    """Return the head of the column of samples: to the threshold where a task can be solved."""
    solvable = tables.is_solvable(runs)
    return f"samples to {percent(float(runs['threshold'].iloc[0]))}" if solvable else "samples"


def minutes_title(runs: pd.DataFrame) -> str:
    """Return the head of the column of device minutes."""
    on_gpu = runs["device"].str.startswith("NVIDIA")
    return "GPU minutes" if on_gpu.all() else "device minutes" if on_gpu.any() else "CPU minutes"


def published_row(row: Published, like: Iterable[str]) -> Row:
    """Return a published row in the columns of a table, with a dash where the paper has none."""
    name, depth, _, value, samples, *_ = heads = list(like)
    parameters = f" ({row['parameters']} parameters)" if row["parameters"] else ""
    solved = "" if number(row["value"]) >= PUBLISHED_SOLVED else "not within "
    return dict.fromkeys(heads, UNKNOWN) | {
        name: Bold(f"{row['model']}, published{parameters}"),
        depth: row["depth"] or UNKNOWN,
        value: row["value"],
        samples: solved + row["samples"] if row["samples"] else UNKNOWN,
    }


def published_rows(published: pd.DataFrame) -> list[Row]:
    """Return the published rows of a task of which nothing was measured."""
    task = str(published["task"].iloc[0])
    solved = f"samples to {PUBLISHED_SOLVED:g}%" if published["samples"].any() else "samples"
    return [published_row(row, columns(task, solved)) for row in published.to_dict("records")]


def experiment_rows(table: pd.DataFrame, published: pd.DataFrame, every: bool) -> list[Row]:
    """Return the rows of one scale and task, each published one before the measured one of its L.

    If `every` published row is shown, those that nothing was measured for come first.
    """
    found, waiting = measured(table), published.to_dict("records")
    alone = [each for each in waiting if every and not any(_is_of(each, runs) for runs, _ in found)]
    shown = [published_row(each, found[0][1]) for each in alone]
    for runs, row in found:
        same = [each for each in waiting if _is_of(each, runs)]
        waiting = [each for each in waiting if each not in same]
        shown += [*(published_row(each, row) for each in same), row]
    return shown


def _is_of(row: Published, runs: pd.DataFrame) -> bool:
    model, depth = runs["model"].iloc[0], runs["depth"].iloc[0]
    return model in COUNTERPARTS.get(row["model"], ()) and row["depth"] == str(depth)


# Published rows compared with measured ones


def counterpart(row: Published, table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs to compare a published row with: of its L or, where it has none, the best."""
    models = COUNTERPARTS.get(row["model"], [])
    same = table[
        (table["scale"] == "paper") & (table["task"] == row["task"]) & table["model"].isin(models)
    ]
    if row["depth"]:
        same = same[same["depth"] == int(row["depth"])]
    return best_line(same) if len(same) else same


def best_line(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of a task with the configuration, L, M and settings that are best.

    It is the one that the largest share of seeds solves, then in the fewest samples, then the best
    on the validation samples, which choose and not the test samples. Runs that see ahead are left
    out where there are others.
    """
    fair = runs if runs["sees_ahead"].all() else runs[~runs["sees_ahead"]]
    return max(tables.lines(fair), key=_merit)


def _merit(line: pd.DataFrame) -> tuple[float, float, float]:
    solved = line["samples_to_threshold"].astype(float).dropna()
    mean = solved.mean() if len(solved) else math.inf
    measure = measure_of(line["task"].iloc[0])
    sign = 1 if measure.higher_is_better else -1
    return len(solved) / len(line), -mean, sign * measure.of(line, "best").mean()


def quality_text(runs: pd.DataFrame) -> str:
    """Return the quality of some runs: "99.4% (99.1 to 99.8)"."""
    measure = measure_of(runs["task"].iloc[0])
    mean, *spread = mean_range(quality(runs), measure.digits).partition(" (")
    unit = (measure.unit or " bpc") if mean != UNKNOWN else ""
    return mean + unit + "".join(spread)


def result(runs: pd.DataFrame) -> str:
    """Return the quality of some runs and, where a task can be solved, the samples it took."""
    if not tables.is_solvable(runs):
        return quality_text(runs)
    between = " after " if runs["samples_to_threshold"].notna().all() else ", "
    return quality_text(runs) + between + tables.samples_text(runs)


def published_result(row: Published) -> str:
    """Return the quality and the samples of a published row, as `result` does of runs."""
    measure = measure_of(row["task"])
    text = row["value"] + (measure.unit or " bpc")
    return f"{text} after {row['samples']}" if row["samples"] else text


def verdict(row: Published, runs: pd.DataFrame) -> str:
    """Tell whether runs reproduce a published row, and by how much they miss it [ours].

    Numbers of samples are the same within a factor of `FACTOR`, results within `MARGINS`, and both
    where the published number lies in the range over seeds. Runs are its `counterpart`, or none.
    """
    if runs.empty:
        built = row["model"] in COUNTERPARTS
        return "not run at the paper's size" if built else "not built here"
    return _by_samples(row, runs) if row["samples"] else _by_quality(row, runs)


def _by_samples(row: Published, runs: pd.DataFrame) -> str:
    theirs, solved = number(row["samples"]), runs["samples_to_threshold"].dropna().astype(float)
    ended = f"{quality(runs).mean():.0f}% after {people(runs['samples'].mean())}"
    if number(row["value"]) < PUBLISHED_SOLVED:
        if len(solved) == len(runs):
            return "not reproduced: ours is better, it solves the task"
        short = runs["samples"].max() < theirs
        return f"undecided: {ended}" if short else _by_quality(row, runs)
    if solved.empty:
        return Bold(f"not reproduced: {ended}")
    ratio = solved.mean() / theirs
    gap = f"{ratio:.2g} × the samples"
    if len(solved) < len(runs):
        return f"in part: {len(solved)} of {len(runs)} seeds, {gap}"
    same = 1 / FACTOR <= ratio <= FACTOR or solved.min() <= theirs <= solved.max()
    return f"reproduced: {gap}" if same else f"{'better' if ratio < 1 else 'worse'}: {gap}"


def _by_quality(row: Published, runs: pd.DataFrame) -> str:
    measure, values = measure_of(row["task"]), quality(runs)
    theirs, gap = number(row["value"]), values.mean() - number(row["value"])
    text = f"{gap:+.{measure.digits}f}{' points' if measure.unit else ''}"
    if abs(gap) <= MARGINS[measure.name] or values.min() <= theirs <= values.max():
        return f"reproduced: {text}"
    return f"better: {text}" if (gap > 0) == measure.higher_is_better else Bold(f"missed: {text}")


def compared_row(row: Published, table: pd.DataFrame) -> Row:
    """Compare a published row with runs of the reproduction: what is the same, at what cost."""
    runs = counterpart(row, table)
    there = len(runs) > 0
    name = row["model"]
    if there and (label := tables.label(runs)) != name:
        name = f"{name} ({label})"
    depth = row["depth"] or (str(runs["depth"].iloc[0]) if there else UNKNOWN)
    return {
        "configuration": name,
        "L": depth,
        "published": published_result(row),
        "measured": result(runs) if there else UNKNOWN,
        "seeds": str(len(runs)) if there else UNKNOWN,
        "how it ended": outcomes(runs) if there else UNKNOWN,
        "verdict": verdict(row, runs),
        "GPU minutes": minutes(runs) if there else UNKNOWN,
    }


def figure_row(runs: pd.DataFrame, depths: Sequence[int]) -> Row:
    """Return the row of a figure's configuration, at its best L, and the depths it lacks."""
    best, ran = best_line(runs), sorted(set(runs["depth"]))
    absent = [depth for depth in depths if depth not in ran]
    seeds = runs.groupby("depth")["seed"].nunique()
    return {
        "configuration": str(runs["label"].iloc[0]),
        "L": ", ".join(map(str, ran)),
        "best L": str(best["depth"].iloc[0]),
        "measured at the best L": result(best),
        "seeds": tables.distinct(sorted({seeds.min(), seeds.max()}), " to "),
        "how they ended": outcomes(runs),
        "not run": f"L = {', '.join(map(str, absent))}" if absent else UNKNOWN,
        minutes_title(runs): minutes(runs),
    }


def cost_rows(table: pd.DataFrame) -> list[Row]:
    """Return the runs and device minutes of each experiment, by scale and hardware."""
    return [
        {
            "scale": str(scale),
            "experiment": str(experiment),
            "on": str(hardware),
            "runs": str(len(runs)),
            "device minutes a run (range)": mean_range(runs["device_seconds"] / 60, 1),
            "device minutes": minutes(runs),
        }
        for (scale, experiment, hardware), runs in table.groupby(
            ["scale", "experiment", "hardware"], sort=False
        )
    ]
