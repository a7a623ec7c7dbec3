"""The pages: of every experiment, of runtime, the front page, and the README's short table.

Text made of records and of the published numbers; nothing is read or written. What records hold is
text: no link, no markup, no line of its own.
"""

import functools
import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from tlstm.records import table as tables
from tlstm.records.measurement import Measurement
from tlstm.records.measures import STANDS_IN_FOR, measure_of, original
from tlstm.records.schema import CurvePoint, Record
from tlstm.records.store import latest
from tlstm.reporting import rows, runtime
from tlstm.reporting.claims import Judgement, counted, judge_all, summary
from tlstm.reporting.comparison import DEPTHS, LABELS

TEMPLATES = Path(__file__).parent / "templates"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
PAPER = "3D tLSTM+CN"  # whose published rows the README has
FIGURE_TASKS = {
    "fig3": ("wikipedia",),
    "fig4": ("addition", "memorization"),
    "fig5": ("mnist", "permuted_mnist"),
}
# What would be markup; an underscore within a word is none, an address would become a link
MARKUP = re.compile(r"[\\`*\[\]<|~$&#]|\b_|_\b|:(?=//)|(?<=www)\.|^[>+=-](?!\d)")


class Markdown(str):
    """Text that is Markdown already."""


Pictured = Callable[[Sequence[Record], pd.DataFrame, pd.DataFrame], Figure]


class Experiment(NamedTuple):
    """The way in which the records of an experiment are shown.

    Attributes:
        title: of its page.
        command: makes its records, with {} in the place of its name.
        figure: draws the records of one scale and task, given the published numbers and the
            benchmark's runtimes too; None where there is only a table.
        published: the table of published.csv that its page shows; empty for none.
        shown_by: the experiment whose page has the runs of the same models and depths.
        reference_runs: experiments whose runs of the same models and depths are in its pictures
            too, and from which the settings of its own are named.
        includes: experiments whose runs of the same models and depths count as its own.
        section: makes the end of its page, in Markdown, of its records and of all those of
            `reference_runs`, given the published numbers; None for none.
    """

    title: str
    command: str
    figure: Pictured | None = None
    published: str = ""
    shown_by: str | None = None
    reference_runs: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    section: Callable[[Sequence[Record], pd.DataFrame], str] | None = None


def escaped(value: object) -> Markdown:
    """Return a value as one line of Markdown that shows its text."""
    if isinstance(value, Markdown):
        return value
    text = MARKUP.sub(lambda found: f"\\{found[0]}", re.sub(r"\s+", " ", str(value)))
    return Markdown(f"**{text}**" if isinstance(value, rows.Bold) else text)


def code(value: object) -> Markdown:
    """Return a value as one line of code."""
    text = " ".join(str(value).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Markdown(f"{fence}{space}{text}{space}{fence}")


def markdown(shown: Iterable[rows.Row]) -> Markdown:
    """Return rows as a table, without columns of which nothing is known; "" if there are none."""
    table = pd.DataFrame(list(shown)).fillna(tables.UNKNOWN)
    lines = [[*table], [Markdown("---")] * table.shape[1], *table.to_numpy().tolist()]
    cells = [map(escaped, line) for line in lines if line]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in cells))


def templates(**options: Any) -> jinja2.Environment:
    """Return the templates; a name that nothing is given for is an error."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **options)


@functools.cache
def _pages() -> jinja2.Environment:
    """Return the templates of pages in Markdown, which show whatever they are given as text."""
    made = templates(finalize=escaped)
    made.filters |= {"markdown": markdown, "code": code, "file": Markdown}
    return made


def rendered(template: str, **values: object) -> str:
    """Return a page in Markdown."""
    return _pages().get_template(template).render(**values)


def experiment_page(
    name: str,
    shown: Experiment,
    records: Sequence[Record],
    published: pd.DataFrame,
    times: pd.DataFrame,
    pictures: Collection[str] = (),
    reference_runs: Sequence[Record] = (),
) -> str:
    """Return the page of an experiment, in Markdown: scales from the paper's down, smoke last.

    Args:
        name: of the experiment.
        shown: its title, and where its runs come from.
        records: of all runs, of those that were done again all times; there may be none yet.
        published: the rows of published.csv that the page shows.
        times: rows of `rows.benchmark_times`.
        pictures: that are drawn, <scale>-<task>.
        reference_runs: from which the settings of the page's runs are named.
    """
    every = shown.shown_by is not None or not records
    parts = []
    for scale in sorted({record.scale for record in records}, key=tables.scale_order):
        of_scale = [record for record in records if record.scale == scale]
        table = rows.run_table(latest(of_scale), reference_runs, times)
        compared = published if scale == "paper" else published[:0]
        tasks = [
            {
                "title": rows.task_title(str(task)),
                "other": " and ".join(
                    ["size"] * (scale != "paper") + ["data"] * (task in STANDS_IN_FOR)
                ),
                "picture": f"{scale}-{task}" if f"{scale}-{task}" in pictures else "",
                "sizes": tables.sizes(runs),
                "cost": cost(runs),
                "verdict": verdict(runs),
                "solvable": tables.is_solvable(runs),
                "rows": rows.experiment_rows(runs, compared[compared["task"] == task], every),
            }
            for task, runs in table.groupby("task")
        ]
        said = {"again": repeats(of_scale), "ahead": table["sees_ahead"].any()}
        parts.append({"name": scale, "tasks": tasks, "differ": table["variant"].any(), **said})
    there = {record.task for record in records if record.scale == "paper"}
    alone = published[~published["task"].isin(there)] if every else published[:0]
    return rendered(
        "experiment.md.jinja",
        name=name,
        shown=shown,
        command=shown.command.format(name),
        scales=parts,
        published=[
            {"title": rows.task_title(str(task)), "rows": rows.published_rows(of_task)}
            for task, of_task in alone.groupby("task", sort=False)
        ],
        mnist=any("mnist" in task for task in published["task"]),
        bits=any(measure_of(record.task).name != "accuracy" for record in records),
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
    text = f"The best on validation is {name}: {rows.result(best)} on the test samples."
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
    gaps = [
        [abs(a.accuracy - b.accuracy) for a, b in repeat]
        for repeat in found
        if any((a.accuracy, a.loss) != (b.accuracy, b.loss) for a, b in repeat)
    ]
    times = "once" if len(found) == 1 else f"{len(found)} times"
    same = f"{len(found) - len(gaps)} of them " if gaps else ""
    text = f"{times}, {same}with the same accuracy and loss to the last digit at every validation"
    if not gaps:
        return text
    return f"{text}, else with accuracies up to {100 * max(map(max, gaps)):.1f} points apart"


def repeated(records: Iterable[Record]) -> list[list[tuple[CurvePoint, CurvePoint]]]:
    """Return pairs of validations after the same samples, for every time a run was done again."""
    runs: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.finished):
        runs.setdefault(record.identifier, []).append(record)
    found = []
    for first, second in chain.from_iterable(map(pairwise, runs.values())):
        before = {point.samples: point for point in first.curve}
        found.append([(before[p.samples], p) for p in second.curve if p.samples in before])
    return [pairs for pairs in found if pairs]


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


def all_results(
    records: Sequence[Record], measurements: Sequence[Measurement], published: pd.DataFrame
) -> Results:
    """Return everything that was measured: runs of all experiments, and the benchmark."""
    varied = [record for record in records if record.experiment in tables.VARIED]
    reproduction = [record for record in records if record.experiment not in tables.VARIED]
    own, others = (rows.run_table(latest(runs)) for runs in (reproduction, varied))
    return Results(own, others, published, judge_all(records, measurements))


def front_page(found: Results, titles: Mapping[str, str], drawn: Container[str]) -> str:
    """Return the front page of all results: what is reproduced, what is not, at what cost.

    Args:
        found: everything that was measured.
        titles: of the pages, by the names of their folders.
        drawn: folders whose page exists.
    """
    figures = [
        _figure(name, task, found.table) for name, tasks in FIGURE_TASKS.items() for task in tasks
    ]
    return rendered(
        "front.md.jinja",
        titles={name: title for name, title in titles.items() if name in drawn},
        judgements=found.judgements,
        summary=summary(found.judgements),
        figures=filter(None, figures),
        tables=published_tables(found.published, found.table),
        costs=rows.cost_rows(found.table) + rows.cost_rows(found.others),
    )


def _number(name: str) -> str:
    """Return the paper's name of an experiment: "Figure 3" of fig3, "Table 1" of table1."""
    return name.replace("fig", "Figure ").replace("table", "Table ")


def _figure(name: str, task: str, table: pd.DataFrame) -> dict[str, object] | None:
    """Return a task of a figure at the largest scale that there is, its own data first."""
    runs = _of_figure(table, task)
    if runs.empty:
        return None
    scale, data = min(
        set(zip(runs["scale"], runs["task"], strict=True)),
        key=lambda place: (tables.scale_order(place[0]), place[1] != task, place[1]),
    )
    runs = runs[(runs["scale"] == scale) & (runs["task"] == data)]
    whole = (scale, data) == ("paper", task)
    where = [rows.task_title(data)] * (data != task) + [f"{scale} scale"] * (scale != "paper")
    return {
        "name": name,
        "title": f"{_number(name)}, {rows.task_title(task)}",
        "where": ", ".join(where),
        "rows": [
            rows.figure_row(of_model, DEPTHS[task] if whole else ())
            for _, of_model in runs.groupby("model", sort=False)
        ],
    }


def _of_figure(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the runs of a figure's configurations and depths, on its data or in their place."""
    own = (table["task"].map(original) == task) & table["model"].isin(LABELS)
    return table[own & table["depth"].isin(DEPTHS[task])]


def published_tables(published: pd.DataFrame, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return Tables 1 to 3: the rows with a model to compare with, and the names of the rest."""
    shown = []
    for (name, task), of_task in published.groupby(["table", "task"], sort=False):
        built = of_task["model"].isin(rows.COUNTERPARTS)
        shown.append(
            {
                "name": name,
                "title": f"{_number(str(name))}, {rows.task_title(str(task))}",
                "rows": [
                    rows.compared_row(row, table) for row in of_task[built].to_dict("records")
                ],
                "absent": list(dict.fromkeys(of_task["model"][~built])),
            }
        )
    return shown


def glance(found: Results) -> str:
    """Return the README's table of results, between its markers."""
    of_tables = found.published[found.published["model"] == PAPER].to_dict("records")
    ran = list(dict.fromkeys(found.table["task"][found.table["scale"] == "paper"]))
    shown = [
        _glance_figure(name, data, found)
        for name, tasks in FIGURE_TASKS.items()
        for task in tasks
        for data in (task, *(data for data in ran if STANDS_IN_FOR.get(data) == task))
    ]
    shown += [
        rows.compared_row(row, found.table)
        | {
            "name": row["table"],
            "place": _number(row["table"]),
            "title": f"{rows.task_title(row['task'])}, {row['model']}, L = {row['depth']}",
        }
        for row in of_tables
    ]
    claims = len(found.judgements)
    text = rendered("glance.md.jinja", rows=shown, claims=claims, summary=summary(found.judgements))
    return f"{BEGIN}\n{text}\n{END}"


def _glance_figure(name: str, data: str, found: Results) -> rows.Row:
    """Return the row of a figure for the paper's data, or for others that ran at its scale."""
    task = original(data)
    at_papers_scale = found.table["scale"] == "paper"
    runs = _of_figure(found.table[at_papers_scale & (found.table["task"] == data)], task)
    ran = len(tables.lines(runs))
    ended = f"; best {rows.result(rows.best_line(runs))}" if ran else ""
    findings = [
        finding
        for judgement in found.judgements
        for evidence in judgement.evidence
        if (evidence.scale, evidence.task) == ("paper", data)
        for finding in evidence.findings
    ]
    decides = "" if data == task else "other data, decides no claim; "
    return {
        "name": name,
        "place": _number(name),
        "title": rows.task_title(data),
        "published": f"7 models, L = {', '.join(map(str, DEPTHS[task]))}",
        "measured": f"{ran} of {len(LABELS) * len(DEPTHS[task])} run{ended}",
        "verdict": f"{decides}comparisons: {counted(findings)}" if ran else "not run",
    }


def between_markers(readme: str, block: str) -> str:
    """Return a README with the block between its markers; as it was where it has none."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + block + after if begin and end else readme


# Runtime


def runtime_page(measurements: Sequence[Measurement], pictures: Sequence[str]) -> str:
    """Return the page of the benchmark, machine by machine, with pictures by their names."""
    found = runtime.machines(measurements)
    machines = [_machine(machine, shown, pictures) for machine, shown in found.items()]
    return rendered("runtime.md.jinja", machines=machines)


def _machine(
    machine: runtime.Machine, shown: Sequence[Measurement], pictures: Sequence[str]
) -> dict[str, object]:
    """Return what the template shows of one machine; times where it was measured whole."""
    required = runtime.requirements(runtime.groups(shown))
    targets = runtime.groups(shown, "targets")
    steps = runtime.groups(shown, "step") if not machine.quick else []
    times = (best.microseconds for best in map(runtime.ours, targets) if best)
    gains = (runtime.ratio(runtime.fastest(g, ["autograd"]), runtime.ours(g)) for g in targets)
    packages = ("torch", "triton", "cuda")
    return {
        "machine": machine,
        "hardware": shown[0].hardware,
        "roofline": shown[0].roofline,
        "versions": tables.distinct(
            ", ".join(f"{name} {m.versions[name]}" for name in packages if name in m.versions)
            for m in shown
        ),
        "commits": tables.distinct((m.commit or "no commit")[:12] for m in shown),
        "dates": tables.distinct(f"{m.run:%Y-%m-%d}" for m in shown),
        "pictures": [name for name in pictures if name.rpartition("-")[0] == machine.slug],
        "times": _range(times),
        "gains": _range(gains),
        "cases": len(targets),
        "held": sum(row["hold"] == row["cases"] for row in required),
        "requirements": required,
        "targets": [] if machine.quick else runtime.known(map(runtime.target_row, targets)),
        "steps": runtime.known(map(runtime.step_row, steps)),
        "failures": dict.fromkeys(
            f"{m.competitor.name} on {m.case.name}: {m.failure}" for m in shown if m.failure
        ),
    }


def _range(values: Iterable[float | None]) -> str:
    """Return the smallest and the largest: "10.4 to 1,814"; "" if there is none."""
    found = [value for value in values if value is not None]
    ends = (min(found), max(found)) if found else ()
    return " to ".join(f"{v:,.3g}" if v < 1000 else f"{v:,.0f}" for v in ends)
