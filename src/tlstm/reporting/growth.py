"""How parameters and runtime grow with the depth L: the arithmetic of claim 2.

A growth is an exponent: 1 where something is proportional to L, 0 where it does not depend on L.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tlstm.records.measurement import Measurement
from tlstm.reporting.comparison import LABELS, Answer, Finding
from tlstm.reporting.runtime_summary import fastest, groups, ours

CONFIGURATION = ["scale", "task", "model", "depth", "channels", "hardware"]
COLUMNS = [*CONFIGURATION, "milliseconds", "benchmark"]
PARAMETERS_LEVEL, PARAMETERS_GROWN = 0.10, 0.25  # shares added from the smallest L to the largest
HARDLY, HALF, PROPORTIONAL = 0.25, 0.5, 0.75  # exponents [ours]
PERMUTED = {"mnist": "permuted_mnist"}  # of the same sizes, so of the same runtime


def of_measurements(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """The benchmark's runtime over L, as rows of `COLUMNS`.

    Milliseconds are of one forward and backward pass per timestep of a single example, by the
    fastest of the layer's paths, and by the fastest nn.LSTM for a stack. Scale is "paper" on a
    GPU, and "quick" where sequences were short or there was none.
    """
    rows = []
    for group in groups(measurements, "tasks"):
        case, first = group[0].case, group[0]
        best = fastest(group, ["nn.LSTM"]) if case.is_stack else ours(group)
        if best is not None and best.microseconds is not None:
            scale = "paper" if first.on_gpu and not first.quick else "quick"
            milliseconds = best.microseconds / 1e3 / case.batch_size
            size = case.model, case.depth, case.channels
            measured = *size, first.hardware.device, milliseconds, True
            also = PERMUTED.get(case.task) if scale == "paper" else None
            tasks = filter(None, (case.task, also))
            rows += [(scale, task, *measured) for task in tasks]
    return pd.DataFrame(rows, columns=COLUMNS)


def of_runs(table: pd.DataFrame) -> pd.DataFrame:
    """What the runs themselves measured before they trained, as rows of `COLUMNS`.

    Other runs may share their machine: it is no benchmark, and decides nothing.
    """
    renamed = table.rename(columns={"milliseconds_per_timestep": "milliseconds"})
    return renamed.assign(benchmark=False)[COLUMNS]


def by_benchmark(table: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """The runs with the benchmark's runtimes, where it has measured the same on the same device.

    Args:
        table: rows of `run_table`.
        times: `of_measurements`.

    Returns:
        The rows with a further column, `benchmark`: whether `milliseconds_per_timestep` is its.
    """
    measured = times.drop_duplicates(CONFIGURATION).set_index(CONFIGURATION)["milliseconds"]
    found = measured.reindex(pd.MultiIndex.from_frame(table[CONFIGURATION])).to_numpy(dtype=float)
    own = table["milliseconds_per_timestep"]
    times_of_runs = pd.Series(found, table.index).fillna(own)
    return table.assign(milliseconds_per_timestep=times_of_runs, benchmark=~np.isnan(found))


def exponent(rows: pd.DataFrame) -> float | None:
    """Growth of the milliseconds from the smallest L to the largest; None at a single L."""
    means = rows.groupby("depth")["milliseconds"].mean()
    ratio = means.index.max() / means.index.min()
    if ratio == 1 or means.iloc[0] <= 0:
        return None
    return math.log(means.iloc[-1] / means.iloc[0]) / math.log(ratio)


def runtime_finding(times: pd.DataFrame, model: str) -> Finding:
    """Whether a tLSTM's runtime hardly grows with L, or the sLSTM's in proportion.

    Args:
        times: rows of `COLUMNS`, of one task.
        model: the configuration.
    """
    stack = model == "slstm"
    promise = "grows in proportion to L" if stack else "hardly depends on L"
    compared = f"{LABELS[model]}: runtime {promise}"
    rows = times[times["model"] == model]
    rows = rows[rows["hardware"] == rows["hardware"].mode().get(0)]  # never two machines in one
    grown = None if rows.empty else exponent(rows)
    if grown is None:
        return Finding(compared, "", "missing", f"not run at two L: {LABELS[model]}")
    means = rows.groupby("depth")["milliseconds"].mean()
    first, last = means.index[0], means.index[-1]
    effect = f"{means.iloc[-1] / means.iloc[0]:.2f} × from L = {first} to {last}: L^{grown:.2f}"
    machine = f"on {rows['hardware'].iloc[0]}"
    if not rows["benchmark"].all():
        return Finding(compared, effect, "unclear", f"{machine}, by the runs: no benchmark")
    return Finding(compared, effect, _runtime_answer(grown, stack), f"{machine}, benchmark")


def _runtime_answer(grown: float, stack: bool) -> Answer:
    """With an exponent of one half, between both, as the border to a contradiction."""
    agrees = grown >= PROPORTIONAL if stack else grown <= HARDLY
    contradicts = grown < HALF if stack else grown > HALF
    return "agrees" if agrees else "contradicts" if contradicts else "unclear"


def parameters_finding(table: pd.DataFrame, model: str) -> Finding:
    """Whether the number of parameters hardly depends on L, at the same M.

    Args:
        table: rows of `run_table`, of one scale and task.
        model: the configuration.
    """
    compared = f"{LABELS[model]}: parameters hardly depend on L"
    rows = table[table["model"] == model]
    rows = rows[rows["channels"] == rows["channels"].mode().get(0)].sort_values("depth")
    if rows["depth"].nunique() < 2:
        return Finding(compared, "", "missing", f"not run at two L: {LABELS[model]}")
    first, last = rows.iloc[0], rows.iloc[-1]
    added = last["parameters"] / first["parameters"] - 1
    level, grown = abs(added) <= PARAMETERS_LEVEL, abs(added) > PARAMETERS_GROWN
    return Finding(
        compared,
        f"{added:+.1%} from L = {first['depth']} to {last['depth']}",
        "agrees" if level else "contradicts" if grown else "unclear",
        f"counted, M = {first['channels']}",
    )
