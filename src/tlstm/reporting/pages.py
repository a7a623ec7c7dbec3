"""The pages: of every experiment, the front page of all results, and the README's short table.

Text made of records and of the published numbers; nothing is read or written.
"""

from collections.abc import Collection, Container, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd

from tlstm.records import table as tables
from tlstm.records.measurement import Measurement
from tlstm.records.measures import STANDS_IN_FOR, measure_of
from tlstm.records.schema import CurvePoint, Record
from tlstm.records.store import latest
from tlstm.reporting import rows
from tlstm.reporting.comparison import DEPTHS, LABELS
from tlstm.reporting.verdicts import Judgement, counted, judge_all, summary

TEMPLATES = Path(__file__).parent / "templates"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
PAPER = "3D tLSTM+CN"  # whose published rows the README has
FIGURE_TASKS = {
    "fig3": ("wikipedia",),
    "fig4": ("addition", "memorization"),
    "fig5": ("mnist", "permuted_mnist"),
}


class Heading(NamedTuple):
    """The name of an experiment on its page, and where its runs come from.

    Attributes:
        name: of the experiment, "fig4".
        title: of the page.
        command: makes the records.
        shown_by: another experiment, whose page has the runs of the same models and depths.
    """

    name: str
    title: str
    command: str
    shown_by: str | None = None


def environment() -> jinja2.Environment:
    """Return the templates of pages in Markdown."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
    )
    made.filters["markdown"] = lambda shown: markdown(pd.DataFrame(shown))
    return made


def experiment_page(
    records: Sequence[Record],
    published: pd.DataFrame,
    times: pd.DataFrame,
    pictures: Collection[str],
    heading: Heading,
    reference_runs: Sequence[Record] = (),
) -> str:
    """Return the page of an experiment, in Markdown: scales from the paper's down, smoke last.

    Args:
        records: of all runs, of those that were done again all times; there may be none yet.
        published: the rows of published.csv that the page shows.
        times: rows of `rows.benchmark_times`.
        pictures: that are drawn, <scale>-<task>.
        heading: of the page.
        reference_runs: from which the settings of the page's runs are named.
    """
    scales = sorted({record.scale for record in records}, key=tables.scale_order)
    every = heading.shown_by is not None or not records
    parts = [
        _scale(
            [record for record in records if record.scale == name],
            published if name == "paper" else published[:0],
            every,
            reference_runs,
            times,
            pictures,
        )
        for name in scales
    ]
    there = {record.task for record in records if record.scale == "paper"}
    alone = published[~published["task"].isin(there)] if every else published[:0]
    return (
        environment()
        .get_template("experiment.md.jinja")
        .render(
            heading=heading,
            published=_published(alone),
            scales=parts,
            named=any(part["named"] for part in parts),
            mnist=any("mnist" in task for task in published["task"]),
            bits=any(measure_of(record.task).name != "accuracy" for record in records),
        )
    )


def _published(published: pd.DataFrame) -> list[dict[str, object]]:
    """Return the published rows of tasks that were not measured at the paper's scale."""
    return [
        {
            "title": task_title(str(task)),
            "rows": [
                rows.published_row(row, rows.published_columns(str(task)))
                for row in of_task.to_dict("records")
            ],
        }
        for task, of_task in published.groupby("task", sort=False)
    ]


def _scale(
    records: Sequence[Record],
    published: pd.DataFrame,
    every: bool,
    reference_runs: Sequence[Record],
    times: pd.DataFrame,
    pictures: Collection[str],
) -> dict[str, object]:
    table = rows.run_table(latest(records), reference_runs, times)
    name = str(table["scale"].iloc[0])
    return {
        "name": name,
        "again": repeats(records),
        "sees_ahead": bool(table["sees_ahead"].any()),
        "named": bool(table["variant"].any()),
        "tasks": [
            {
                "title": task_title(str(task)),
                "stands_in_for": STANDS_IN_FOR.get(str(task), ""),
                "picture": f"{name}-{task}" if f"{name}-{task}" in pictures else "",
                "sizes": tables.sizes(runs),
                "cost": cost(runs),
                "verdict": verdict(runs),
                "rows": rows.experiment_rows(runs, published[published["task"] == task], every),
            }
            for task, runs in table.groupby("task")
        ],
    }


def task_title(task: str) -> str:
    """Return a task as a heading."""
    return tables.TITLES.get(task, task.capitalize())


def markdown(table: pd.DataFrame) -> str:
    """Return a table of text in Markdown."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def cost(table: pd.DataFrame) -> str:
    """Return the number of runs, what they took altogether, and on what."""
    runs = "run" if len(table) == 1 else "runs"
    time = f"{rows.minutes(table)} device minutes on {tables.distinct(table['hardware'])}"
    return f"{len(table)} {runs}, {time}"


def verdict(table: pd.DataFrame) -> str:
    """Return the number of configurations that solved the task, and the best of them.

    Args:
        table: rows of `rows.run_table`, of one scale and task.
    """
    best = rows.best_line(table)
    name = f"{tables.label(best)}, L = {best['depth'].iloc[0]}"
    text = f"The best is {name}: {rows.result(best)}."
    if not tables.is_solvable(table):
        return text
    answers = [tables.solved_text(runs) for runs in tables.lines(table)]
    some = len(answers) - answers.count("yes") - answers.count("no")
    return (
        f"Of {len(answers)} configurations {answers.count('yes')} are solved with every seed, "
        f"{some} with some, {answers.count('no')} with none. {text}"
    )


def repeats(records: Iterable[Record]) -> str:
    """Return how often runs were repeated, and whether the result was the same; "" for never.

    Args:
        records: of all times, in any order.
    """
    found = repeated(records)
    if not found:
        return ""
    other = [repeat for repeat in found if any(a[1:] != b[1:] for a, b in repeat)]
    times = "once" if len(found) == 1 else f"{len(found)} times"
    same = f"{len(found) - len(other)} of them " if other else ""
    text = f"{times}, {same}with the same accuracy and loss to the last digit at every validation"
    if not other:
        return text
    largest = max(abs(a[1] - b[1]) for repeat in other for a, b in repeat)
    return f"{text}, else with accuracies up to {100 * largest:.1f} points apart"


Validation = tuple[int, float, float | None]  # samples, accuracy, loss


def repeated(records: Iterable[Record]) -> list[list[tuple[Validation, Validation]]]:
    """Return pairs of validations after the same samples, for every time a run was done again."""
    runs: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.finished):
        runs.setdefault(record.identifier, []).append(record)
    pairs = [_common(*pair) for each in runs.values() for pair in pairwise(each)]
    return [common for common in pairs if common]


def _common(first: Record, second: Record) -> list[tuple[Validation, Validation]]:
    before = {point.samples: _validation(point) for point in first.curve}
    after = map(_validation, second.curve)
    return [(before[point[0]], point) for point in after if point[0] in before]


def _validation(point: CurvePoint) -> Validation:
    return point.samples, point.accuracy, point.loss


# All results


class Results(NamedTuple):
    """The records that the front page and the README's table are made of.

    Attributes:
        table: rows of `rows.run_table`, of all runs of the reproduction, each once.
        others: the same of other experiments.
        published: the rows of published.csv.
        judgements: the claims with their verdicts.
    """

    table: pd.DataFrame
    others: pd.DataFrame
    published: pd.DataFrame
    judgements: list[Judgement]

    @property
    def at_papers_size(self) -> pd.DataFrame:
        """Return the runs of the reproduction at the paper's scale."""
        return self.table[self.table["scale"] == "paper"]


def all_results(
    records: Sequence[Record], measurements: Sequence[Measurement], published: pd.DataFrame
) -> Results:
    """Return everything that was measured.

    Args:
        records: of all experiments, at least one.
        measurements: of the benchmark; there may be none.
        published: the rows of published.csv.
    """
    varied = [record for record in records if record.experiment in tables.VARIED]
    reproduction = [record for record in records if record.experiment not in tables.VARIED]
    return Results(
        rows.run_table(latest(reproduction)) if reproduction else pd.DataFrame(),
        rows.run_table(latest(varied)) if varied else pd.DataFrame(),
        published,
        judge_all(records, measurements),
    )


def front_page(found: Results, titles: Mapping[str, str], drawn: Container[str]) -> str:
    """Return the front page of all results: what is reproduced, what is not, at what cost.

    Args:
        found: everything that was measured.
        titles: of the pages, by the names of their folders.
        drawn: folders whose page exists, to link to.
    """
    every = pd.concat([found.table, found.others], ignore_index=True)
    return (
        environment()
        .get_template("front.md.jinja")
        .render(
            titles={name: title for name, title in titles.items() if name in drawn},
            judgements=found.judgements,
            summary=summary(found.judgements),
            figures=_figures(found.table, titles),
            tables=_tables(found, titles),
            costs=rows.cost_rows(every),
        )
    )


def _figures(table: pd.DataFrame, titles: Mapping[str, str]) -> list[dict[str, object]]:
    """Return the configurations of Figures 3 to 5, at the largest scale that there is."""
    shown = []
    for name, tasks in FIGURE_TASKS.items():
        for task in tasks:
            same = table[(table["task"].map(_original) == task) & table["model"].isin(LABELS)]
            same = same[same["depth"].isin(DEPTHS[task])]
            if same.empty:
                continue
            scale, data = min(
                set(zip(same["scale"], same["task"], strict=True)),
                key=lambda place: (tables.scale_order(place[0]), place[1]),
            )
            runs = same[(same["scale"] == scale) & (same["task"] == data)]
            depths = DEPTHS[task] if scale == "paper" else ()
            shown.append(
                {
                    "name": name,
                    "title": f"{titles[name].partition(':')[0]}, {task_title(task)}",
                    "where": rows.where(scale, data),
                    "papers_size": scale == "paper",
                    "rows": [
                        rows.figure_row(of_model, depths)
                        for _, of_model in runs.groupby("model", sort=False)
                    ],
                }
            )
    return shown


def _original(task: str) -> str:
    return STANDS_IN_FOR.get(task, task)


def _tables(found: Results, titles: Mapping[str, str]) -> list[dict[str, object]]:
    """Return the rows of Tables 1 to 3 with runs to compare with, and the names of the rest."""
    shown = []
    for (name, task), published in found.published.groupby(["table", "task"], sort=False):
        built = published["model"].isin(rows.COUNTERPARTS)
        shown.append(
            {
                "name": name,
                "title": f"{titles[str(name)].partition(':')[0]}, {task_title(str(task))}",
                "rows": [
                    rows.compared_row(row, found.table)
                    for row in published[built].to_dict("records")
                ],
                "absent": list(dict.fromkeys(published["model"][~built])),
            }
        )
    return shown


def glance(found: Results) -> str:
    """Return the README's table of results, between its markers."""
    of_tables = found.published[found.published["model"] == PAPER]
    shown = [
        *(
            _glance_figure(name, task, found)
            for name in FIGURE_TASKS
            for task in FIGURE_TASKS[name]
        ),
        *(_glance_table(row, found) for row in of_tables.to_dict("records")),
    ]
    text = (
        environment()
        .get_template("glance.md.jinja")
        .render(rows=shown, claims=len(found.judgements), summary=summary(found.judgements))
    )
    return f"{BEGIN}\n{text}\n{END}"


def _glance_figure(name: str, task: str, found: Results) -> rows.Row:
    runs = found.at_papers_size
    runs = runs[(runs["task"] == task) & runs["model"].isin(LABELS)]
    runs = runs[runs["depth"].isin(DEPTHS[task])]
    ran = len(tables.lines(runs)) if len(runs) else 0
    ended = f"; best {rows.result(rows.best_line(runs))}" if ran else ""
    findings = [
        finding
        for judgement in found.judgements
        for evidence in judgement.evidence
        if evidence.decides and evidence.task == task
        for finding in evidence.findings
    ]
    return {
        "": f"[Figure {name[3:]}](results/{name}/README.md), {task_title(task)}",
        "published": f"7 models, L = {', '.join(map(str, DEPTHS[task]))}",
        "measured (range over seeds)": f"{ran} of {len(LABELS) * len(DEPTHS[task])} run{ended}",
        "verdict": f"comparisons: {counted(findings)}" if ran else "not run",
    }


def _glance_table(row: Mapping[Hashable, str], found: Results) -> rows.Row:
    compared = rows.compared_row(row, found.table)
    place = f"[Table {row['table'][5:]}](results/{row['table']}/README.md)"
    return {
        "": f"{place}, {task_title(row['task'])}, {row['model']}, L = {row['depth']}",
        "published": compared["published"],
        "measured (range over seeds)": compared["measured"],
        "verdict": compared["verdict"],
    }


def between_markers(readme: str, block: str) -> str:
    """Return a README with the block between its markers; as it was where it has none."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + block + after if begin and end else readme
