"""Verdicts on the paper's claims from the records: each holds, does not hold or is undecided.

Only runs of the paper's scale on the paper's data decide a claim; what others say is told beside
it. A claim holds where all its comparisons agree on all its tasks, and does not hold as soon as one
of them clearly contradicts it [ours].
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import pandas as pd

from tlstm.records import table as tables
from tlstm.records.measurement import Measurement
from tlstm.records.schema import (
    Record,
)
from tlstm.records.store import (
    latest,
)
from tlstm.reporting import rows
from tlstm.reporting.claims import CLAIMS, Claim
from tlstm.reporting.comparison import Answer, Finding, Runs

Verdict = Literal["holds", "does not hold", "undecided"]


class Evidence(NamedTuple):
    """The evidence for a claim from the runs of one scale and task.

    Attributes:
        scale: of the runs, or "quick" measurements.
        task: the label of the data that ran.
        decides: whether they may decide the claim about the paper.
        verdict: what they alone would come to.
        findings: every comparison.
    """

    scale: str
    task: str
    decides: bool
    verdict: Verdict
    findings: list[Finding]


class Judgement(NamedTuple):
    """A claim with its verdict.

    Attributes:
        claim: what is claimed.
        verdict: of the paper's scale and data alone.
        reason: the verdict in numbers: what agrees, what contradicts it, what is missing.
        evidence: what decides first, then what is said beside it.
        apart: the verdict if two runs that both ended on a plateau were told apart.
    """

    claim: Claim
    verdict: Verdict
    reason: str
    evidence: list[Evidence]
    apart: Verdict


def judge_all(
    records: Iterable[Record], measurements: Sequence[Measurement] = ()
) -> list[Judgement]:
    """Return every claim with its verdict.

    Args:
        records: runs of any experiments and scales.
        measurements: of the benchmark, which take the place of the runs' own runtimes.
    """
    reproduction_runs = latest(r for r in records if r.experiment not in tables.VARIED)
    groups = gathered(reproduction_runs, rows.benchmark_times(measurements))
    return [judge(claim, groups) for claim in CLAIMS]


def gathered(records: Sequence[Record], measured: pd.DataFrame) -> list[Runs]:
    """Return the runs by scale and task, with the benchmark's runtimes where there are any.

    Args:
        records: each run once.
        measured: `rows.benchmark_times`.
    """
    nothing = pd.DataFrame(columns=[*Record.model_fields, *rows.TIMES, "variant"])
    table = rows.run_table(records) if records else nothing.loc[:, ~nothing.columns.duplicated()]
    keys = [*zip(table["scale"], table["task"], strict=True)]
    keys += zip(measured["scale"], measured["task"], strict=True)
    return [_runs(*key, table, measured) for key in dict.fromkeys(keys)]


def _runs(scale: str, task: str, table: pd.DataFrame, measured: pd.DataFrame) -> Runs:
    runs, times = (
        each[(each["scale"] == scale) & (each["task"] == task)] for each in (table, measured)
    )
    return Runs(scale, task, runs, runs[rows.TIMES] if times.empty else times)


def judge(claim: Claim, groups: Sequence[Runs]) -> Judgement:
    """Return one claim's verdict, from the runs by scale and task."""
    found = [_evidence(claim, runs) for runs in groups if runs.original in claim.tasks]
    evidence = [each for each in found if not _says_nothing(each)]
    evidence.sort(key=lambda each: not each.decides)
    deciding = [each for each in evidence if each.decides]
    absent = [task for task in claim.tasks if task not in {each.task for each in deciding}]
    verdict = overall([each.verdict for each in deciding], complete=not absent)
    apart = overall([_apart(each) for each in deciding], complete=not absent)
    return Judgement(claim, verdict, reason(deciding, absent), evidence, apart)


def _evidence(claim: Claim, runs: Runs) -> Evidence:
    findings = list(claim.findings(runs))
    return Evidence(runs.scale, runs.task, runs.at_papers_scale, verdict_of(findings), findings)


def _apart(evidence: Evidence) -> Verdict:
    """Return the answer of a finding if plateaus are told apart."""
    return verdict_of(
        [each._replace(answer=each.apart or each.answer) for each in evidence.findings]
    )


def _says_nothing(evidence: Evidence) -> bool:
    return all(finding.answer == "missing" for finding in evidence.findings)


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """Return the verdict on one task: all comparisons must agree; one contradiction refutes it."""
    answers = {finding.answer for finding in findings}
    if "contradicts" in answers:
        return "does not hold"
    return "holds" if answers == {"agrees"} else "undecided"


def overall(verdicts: Sequence[Verdict], complete: bool) -> Verdict:
    """Return the verdict on all tasks together.

    Args:
        verdicts: of those that ran at the paper's scale on the paper's data.
        complete: whether these are all tasks of the claim.
    """
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if complete and set(verdicts) == {"holds"} else "undecided"


def counted(findings: Iterable[Finding]) -> str:
    """Count the comparisons by their answers: "3 agree, 1 unclear, 4 missing"."""
    words: dict[Answer, str] = {
        "agrees": "agree",
        "contradicts": "contradict",
        "unclear": "unclear",
        "missing": "missing",
    }
    numbers = Counter(finding.answer for finding in findings)
    return ", ".join(f"{numbers[each]} {word}" for each, word in words.items() if numbers[each])


def reason(deciding: Sequence[Evidence], absent: Sequence[str]) -> str:
    """Explain why a verdict is what it is, from what may decide it."""
    told = [f"{task_title(each.task)}: {counted(each.findings)}." for each in deciding]
    if absent:
        names = ", ".join(task_title(task) for task in absent)
        told.append(f"Nothing to compare at the paper's scale on the paper's data: {names}.")
    return " ".join(told)


def task_title(task: str) -> str:
    """Return a task's name for people."""
    return tables.TITLES.get(task, task.replace("_", " ").capitalize())


def summary(judgements: Iterable[Judgement]) -> str:
    """Count the claims by their verdicts: "holds: 2, does not hold: 0, undecided: 6"."""
    numbers = Counter(judgement.verdict for judgement in judgements)
    verdicts: tuple[Verdict, ...] = "holds", "does not hold", "undecided"
    return ", ".join(f"{verdict}: {numbers[verdict]}" for verdict in verdicts)


def told_apart(judgements: Iterable[Judgement]) -> str:
    """Return the verdicts that change if plateaus are told apart: "claim 8 (does not hold)"."""
    others = [each for each in judgements if each.apart != each.verdict]
    return ", ".join(f"claim {each.claim.number} ({each.apart})" for each in others)
