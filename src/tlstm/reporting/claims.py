"""The paper's claims, each as comparisons between runs, and the verdicts on them.

Each claim is a pure function from the runs of one scale and task to its comparisons, which stand
for the claim by our choice [ours]. Only runs of the paper's scale on the paper's data decide. A
claim holds where all its comparisons agree on all its tasks, and does not hold as soon as one of
them clearly contradicts it [ours].
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Literal, NamedTuple, get_args

import pandas as pd

from tlstm.records import table as tables
from tlstm.records.measurement import Measurement
from tlstm.records.schema import Record
from tlstm.records.store import latest
from tlstm.reporting import rows
from tlstm.reporting.comparison import DEPTHS, GENERATED, LABELS, Answer, Finding, Runs, Side

Findings = Iterator[Finding]
Claimed = Callable[[Runs], Findings]
Verdict = Literal["holds", "does not hold", "undecided"]

TENSORIZED = tuple(model for model in LABELS if model != "slstm")
GROWING = ("tlstm_2d", "tlstm_3d", "tlstm_3d_cn")
WITHOUT_MEMORY = ("slstm", "tlstm_2d_no_memory_convolution")
FIRST_SOLVED = {"addition": Side("tlstm_3d_cn", 7), "memorization": Side("tlstm_3d_cn", 10)}

PARAMETERS_LEVEL, PARAMETERS_GROWN = 0.10, 0.25  # shares added from the smallest L to the largest
HARDLY, HALF, PROPORTIONAL = 0.25, 0.5, 0.75  # exponents [ours]


class Claim(NamedTuple):
    """A claim of the paper.

    Attributes:
        number: of the list in the order of the paper.
        statement: in words.
        tested: how it is decided here.
        findings: its comparisons for the runs of one scale and task.
        tasks: on which the paper makes it.
    """

    number: int
    statement: str
    tested: str
    findings: Claimed
    tasks: tuple[str, ...] = tuple(DEPTHS)


def _deeper(runs: Runs) -> Findings:
    """Test claim 1: the deepest of each tLSTM against its own L = 1, of the same M."""
    for model in GROWING:
        yield runs.compare(Side(model, runs.depths[-1]), "better", Side(model, 1))


def _cheaper(runs: Runs) -> Findings:
    """Test claim 2: growth of parameters and of runtime with L."""
    for model in TENSORIZED if len(runs.table) else ():
        yield parameters_finding(runs.table, model)
    for model in LABELS:
        yield runtime_finding(runs.times, model)


def _memory_convolution(runs: Runs) -> Findings:
    """Test claim 3: the deepest with it beats that without, which gains nothing from depth."""
    deepest = runs.depths[-1]
    for model in WITHOUT_MEMORY:
        yield runs.compare(Side("tlstm_2d", deepest), "better", Side(model, deepest))
    for model in WITHOUT_MEMORY if len(runs.depths) > 2 else ():
        if runs.original in GENERATED:
            yield runs.compare(Side(model, runs.depths[1]), "better", Side(model, deepest))
        else:
            yield runs.compare(Side(model, deepest), "no better", Side(model, runs.depths[-2]))


def _feedback(runs: Runs) -> Findings:
    """Test claim 4: with feedback against without, where L > 1; on Wikipedia at the deepest."""
    depths = runs.depths[-1:] if runs.original == "wikipedia" else runs.deep
    relation: Literal["better", "no different"] = (
        "no different" if "mnist" in runs.original else "better"
    )
    for depth in depths:
        yield runs.compare(Side("tlstm_2d", depth), relation, Side("tlstm_2d_no_feedback", depth))


def _tensorization(runs: Runs) -> Findings:
    """Test claim 5: 3D against 2D where L > 1; on Wikipedia, whose M differ, where L ≥ 3."""
    least = 3 if runs.original == "wikipedia" else 2
    for depth in (depth for depth in runs.depths if depth >= least):
        yield runs.compare(Side("tlstm_3d", depth), "better", Side("tlstm_2d", depth))


def _normalization(runs: Runs) -> Findings:
    """Test claim 6: CN against none at every L; LN against none at small L, against CN on MNIST."""
    for depth in runs.depths:
        plain, channel, layer = (
            Side(model, depth) for model in ("tlstm_3d", "tlstm_3d_cn", "tlstm_3d_ln")
        )
        yield runs.compare(channel, "better", plain)
        if "mnist" not in runs.original:
            small = 2 if runs.original == "wikipedia" else 1
            yield runs.compare(layer, "better" if depth <= small else "no better", plain)
        elif depth >= 3:
            yield runs.compare(channel, "better", layer)


def _shallow(runs: Runs) -> Findings:
    """Test claim 7: sLSTM and 2D–F against all others at L ≤ 2."""
    winners = "slstm", "tlstm_2d_no_feedback"
    others = [model for model in LABELS if model not in winners]
    shallow = [depth for depth in runs.depths if depth <= 2]
    for depth, winner, other in product(shallow, winners, others):
        yield runs.compare(Side(winner, depth), "better", Side(other, depth))


def _first(runs: Runs) -> Findings:
    """Test claim 8: the one that is to be first against all others."""
    model, depth = FIRST_SOLVED[runs.original]
    winner = Side(model, min(runs.depths, key=lambda other: abs(other - depth)))
    for other in map(Side._make, product(LABELS, runs.depths)):
        if other != winner:
            yield runs.compare(winner, "better", other)


def runtime_finding(times: pd.DataFrame, model: str) -> Finding:
    """Test whether a tLSTM's runtime hardly grows with L, or the sLSTM's in proportion."""
    stack = model == "slstm"
    promise = "grows in proportion to L" if stack else "hardly depends on L"
    compared = f"{LABELS[model]}: runtime {promise}"
    timed = times[times["model"] == model]
    timed = timed[timed["hardware"] == timed["hardware"].mode().get(0)]  # never two machines in one
    means = timed.groupby("depth")["microseconds"].mean()
    if len(means) < 2 or means.iloc[0] <= 0:
        return Finding(compared, "", "missing", f"not run at two L: {LABELS[model]}")
    first, last, ratio = means.index[0], means.index[-1], means.iloc[-1] / means.iloc[0]
    grown = math.log(ratio) / math.log(last / first)
    effect = f"{ratio:.2f} × from L = {first} to {last}: L^{grown:.2f}"
    machine = f"on {timed['hardware'].iloc[0]}"
    if not timed["benchmark"].all():
        return Finding(compared, effect, "unclear", f"{machine}, by the runs: no benchmark")
    agrees = grown >= PROPORTIONAL if stack else grown <= HARDLY
    contradicts = grown < HALF if stack else grown > HALF  # one half is the border
    answer: Answer = "agrees" if agrees else "contradicts" if contradicts else "unclear"
    return Finding(compared, effect, answer, f"{machine}, benchmark")


def parameters_finding(table: pd.DataFrame, model: str) -> Finding:
    """Test whether the number of parameters hardly depends on L, at the same M."""
    compared = f"{LABELS[model]}: parameters hardly depend on L"
    runs = table[table["model"] == model]
    runs = runs[runs["channels"] == runs["channels"].mode().get(0)].sort_values("depth")
    if runs["depth"].nunique() < 2:
        return Finding(compared, "", "missing", f"not run at two L: {LABELS[model]}")
    first, last = runs.iloc[0], runs.iloc[-1]
    added = last["parameters"] / first["parameters"] - 1
    level, grown = abs(added) <= PARAMETERS_LEVEL, abs(added) > PARAMETERS_GROWN
    return Finding(
        compared,
        f"{added:+.1%} from L = {first['depth']} to {last['depth']}",
        "agrees" if level else "contradicts" if grown else "unclear",
        f"counted, M = {first['channels']}",
    )


CLAIMS = (
    Claim(
        1,
        "Wider and deeper tLSTMs perform better at the same number of parameters.",
        "2D tLSTM, 3D tLSTM and 3D tLSTM+CN: the largest L (and so P) against L = 1, the same M.",
        _deeper,
    ),
    Claim(
        2,
        "The number of parameters and the runtime of a tLSTM hardly depend on L; the runtime of "
        "sLSTM grows in proportion to L.",
        "From the smallest L to the largest, parameters change by at most 10% (not: by more than "
        "25%). Runtime grows as L to the power of at most 0.25 (tLSTM), of at least 0.75 "
        "(sLSTM); beyond 0.5 the claim is contradicted.",
        _cheaper,
    ),
    Claim(
        3,
        "Without memory-cell convolution the gain from depth is lost.",
        "At the largest L, 2D tLSTM is better than sLSTM and 2D tLSTM–M. These two gain nothing "
        "from the last step in L (Wikipedia, MNIST), or are better at the second L than at the "
        "largest (addition, memorization).",
        _memory_convolution,
    ),
    Claim(
        4,
        "Feedback helps: 2D beats 2D–F at L = 4 on Wikipedia and on both algorithmic tasks; on "
        "MNIST it makes no difference.",
        "2D tLSTM against 2D tLSTM–F: at the largest L on Wikipedia, at every L > 1 elsewhere.",
        _feedback,
    ),
    Claim(
        5,
        "Tensorization helps: 3D beats 2D.",
        "3D tLSTM against 2D tLSTM at every L > 1; on Wikipedia, where M is larger in 2D, at "
        "every L ≥ 3.",
        _tensorization,
    ),
    Claim(
        6,
        "CN helps at every L; LN only at small L.",
        "3D tLSTM+CN against 3D tLSTM at every L. 3D tLSTM+LN is better than 3D tLSTM at L ≤ 2 "
        "on Wikipedia and L = 1 on the algorithmic tasks, and no better above; on MNIST CN is "
        "better than LN at L ≥ 3.",
        _normalization,
    ),
    Claim(
        7,
        "At L ≤ 2 on Wikipedia sLSTM and 2D–F win, because their M is larger.",
        "sLSTM and 2D tLSTM–F, each against every other configuration of Figure 3, at L = 1, 2.",
        _shallow,
        ("wikipedia",),
    ),
    Claim(
        8,
        "Addition is solved first by 3D+CN with L = 7, memorization by 3D+CN with L = 10.",
        "It against every other configuration and L of Figure 4, by samples to 99%.",
        _first,
        GENERATED,
    ),
)


# Verdicts


class Evidence(NamedTuple):
    """The evidence for a claim from the runs of one scale and task.

    Attributes:
        scale: of the runs, or "quick" measurements.
        task: the label of the data that ran.
        decides: whether they may decide the claim about the paper.
        verdict: from them alone.
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
        evidence: first the runs that decide, then the others.
        with_plateaus: the verdict if runs that both ended on a plateau were compared too.
    """

    claim: Claim
    verdict: Verdict
    reason: str
    evidence: list[Evidence]
    with_plateaus: Verdict


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
    table = rows.run_table(records)
    keys = [*zip(table["scale"], table["task"], strict=True)]
    keys += zip(measured["scale"], measured["task"], strict=True)
    found = []
    for scale, task in dict.fromkeys(keys):
        runs, times = (
            each[(each["scale"] == scale) & (each["task"] == task)] for each in (table, measured)
        )
        found.append(Runs(scale, task, runs, runs[rows.TIMES] if times.empty else times))
    return found


def judge(claim: Claim, groups: Sequence[Runs]) -> Judgement:
    """Return one claim's verdict, from the runs by scale and task."""
    found = [_evidence(claim, runs) for runs in groups if runs.original in claim.tasks]
    evidence = [each for each in found if {f.answer for f in each.findings} - {"missing"}]
    evidence.sort(key=lambda each: not each.decides)
    deciding = [each for each in evidence if each.decides]
    absent = [task for task in claim.tasks if task not in {each.task for each in deciding}]
    verdict = overall([each.verdict for each in deciding], complete=not absent)
    with_plateaus = overall([_with_plateaus(each) for each in deciding], complete=not absent)
    others = [each for each in evidence if each.scale == "paper" and not each.decides]
    return Judgement(claim, verdict, reason(deciding, absent, others), evidence, with_plateaus)


def _evidence(claim: Claim, runs: Runs) -> Evidence:
    findings = list(claim.findings(runs))
    return Evidence(runs.scale, runs.task, runs.at_papers_scale, verdict_of(findings), findings)


def _with_plateaus(evidence: Evidence) -> Verdict:
    """Return the verdict if runs on plateaus are compared too."""
    found = [each._replace(answer=each.on_plateau or each.answer) for each in evidence.findings]
    return verdict_of(found)


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """Return the verdict on one task: all comparisons must agree; one contradiction refutes it."""
    answers = {finding.answer for finding in findings}
    if "contradicts" in answers:
        return "does not hold"
    return "holds" if answers == {"agrees"} else "undecided"


def overall(verdicts: Sequence[Verdict], complete: bool) -> Verdict:
    """Return the verdict on all tasks, from those that decide and whether these are complete."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if complete and set(verdicts) == {"holds"} else "undecided"


def counted(findings: Iterable[Finding]) -> str:
    """Count the comparisons by their answers: "3 agree, 1 unclear, 4 missing"."""
    numbers = Counter(finding.answer for finding in findings)
    return ", ".join(
        f"{numbers[answer]} {answer.removesuffix('s')}"
        for answer in get_args(Answer)
        if numbers[answer]
    )


def reason(
    deciding: Sequence[Evidence], absent: Sequence[str], others: Sequence[Evidence] = ()
) -> str:
    """Explain why a verdict is what it is, from what may decide it."""
    parts = [f"{rows.task_title(each.task)}: {counted(each.findings)}." for each in deciding]
    if absent:
        names = ", ".join(rows.task_title(task) for task in absent)
        parts.append(f"Nothing to compare at the paper's scale on the paper's data: {names}.")
    parts += [f"({rows.task_title(each.task)}: {counted(each.findings)}.)" for each in others]
    return " ".join(parts)


def summary(judgements: Iterable[Judgement]) -> str:
    """Count the claims by their verdicts: "holds: 2, does not hold: 0, undecided: 6"."""
    numbers = Counter(judgement.verdict for judgement in judgements)
    return ", ".join(f"{verdict}: {numbers[verdict]}" for verdict in get_args(Verdict))


def plateau_verdicts(judgements: Iterable[Judgement]) -> str:
    """Return the verdicts that change if runs on plateaus are compared too: "claim 8 (holds)"."""
    others = [each for each in judgements if each.with_plateaus != each.verdict]
    return ", ".join(f"claim {each.claim.number} ({each.with_plateaus})" for each in others)
