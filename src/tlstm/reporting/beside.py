"""What was measured at the paper's scale, beside every published row.

Text made of records and of the published numbers; a dash is a number that is not known.
"""

from collections.abc import Hashable, Mapping

import pandas as pd

from tlstm.records import table as tables
from tlstm.reporting.sections import best_line, digits, with_quality

# What a published row is to be compared with; the rest of them has not been built here
MODELS = {
    "Stacked LSTM": ["slstm"],
    "Grid LSTM": ["grid_lstm_tied", "grid_lstm_untied"],
    "3D tLSTM+CN": ["tlstm_3d_cn"],
}


def measured_beside(published: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """For each published row the runs that it is to be compared with, in the same order.

    They are those of its L, or where it has none those of the L (and the form of Grid LSTM) that
    `best_line` finds best.

    Args:
        published: rows of published.csv, of one task.
        runs: rows of `tables.run_table`, of this task at the paper's scale; there may be none.
    """
    rows = [_beside(row, runs) for row in published.to_dict("records")]
    return pd.DataFrame(rows, index=published.index).fillna(tables.UNKNOWN)


def _beside(row: Mapping[Hashable, str], runs: pd.DataFrame) -> dict[str, str]:
    same = runs[runs["model"].isin(MODELS.get(row["model"], []))]
    if row["depth"]:
        same = same[same["depth"] == int(row["depth"])]
    if same.empty:
        return dict.fromkeys(_columns(row["task"], "", "", "", "", ""), tables.UNKNOWN)
    line = best_line(with_quality(same))
    return _columns(
        row["task"],
        f"{tables.label(line)}, L = {line['depth'].iloc[0]}",
        tables.spread(line["shown"], digits(line)),
        tables.samples_text(line) if tables.is_solvable(line) else tables.UNKNOWN,
        str(len(line)),
        f"{line['device_seconds'].mean() / 60:.1f}",
    )


def _columns(
    task: str, configuration: str, quality: str, samples: str, seeds: str, minutes: str
) -> dict[str, str]:
    """The measured columns; those of samples where the paper gives them."""
    solving = {"measured: samples to 99%": samples} if task in ("addition", "memorization") else {}
    return {
        "measured: configuration": configuration,
        "measured: test": quality,
        **solving,
        "seeds": seeds,
        "GPU minutes per run": minutes,
    }
