import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import worlds
from test_bench import everything, on_processor
from tlstm.records import table as tables
from tlstm.reporting.claims import (
    CLAIMS,
    Judgement,
    gathered,
    judge,
    judge_all,
    plateau_verdicts,
    summary,
)
from tlstm.reporting.comparison import DEPTHS, answer, interval
from tlstm.reporting.rows import benchmark_times

MEASURED = [each for each in everything() if each.case.suite == "tasks"]
ALL = ["holds"] * 8


def verdicts(records, measurements=MEASURED) -> list[str]:
    return [judgement.verdict for judgement in judge_all(records, measurements)]


def judged(number: int, records, measurements=MEASURED) -> Judgement:
    return judge(CLAIMS[number - 1], gathered(records, benchmark_times(measurements)))


# Intervals and answers


VALUES = st.lists(st.integers(-1000, 1000), min_size=1, max_size=5)


@given(VALUES, VALUES, st.floats(0.01, 10))
def test_intervals_hold_the_difference_and_turn_with_the_sides(first, second, margin):
    one, other = np.array(first, dtype=float), np.array(second, dtype=float)
    low, high, over_seeds = interval(one, other, margin)
    back, forth, _ = interval(other, one, margin)
    assert low < one.mean() - other.mean() < high
    assert (back, forth) == pytest.approx((-high, -low))
    varied = len(set(first)) > 1 or len(set(second)) > 1
    assert over_seeds == (varied and min(len(first), len(second)) > 1)
    if over_seeds:
        expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
        assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-6)


@pytest.mark.parametrize(
    ("relation", "low", "high", "expected"),
    [
        ("better", 0.1, 2, "agrees"),
        ("better", -2, -0.1, "contradicts"),
        ("better", -1, 1, "unclear"),
        ("no different", -1, 1.9, "agrees"),
        ("no different", 2.1, 3, "contradicts"),
        ("no different", -3, -2.1, "contradicts"),
        ("no different", 1, 3, "unclear"),
        ("no better", -9, -8, "agrees"),
        ("no better", -1, 1, "agrees"),
        ("no better", 0.1, 1, "contradicts"),
        ("no better", -1, 9, "unclear"),
    ],
)
def test_answers(relation, low, high, expected):
    assert answer(relation, low, high, margin=1.0) == expected


# The claims


def test_every_claim_holds_where_the_runs_are_as_the_paper_says():
    assert verdicts(worlds.world()) == ALL
    expected = "holds: 8, does not hold: 0, undecided: 0"
    assert summary(judge_all(worlds.world(), MEASURED)) == expected


@pytest.mark.parametrize(
    ("number", "place", "value"),
    [
        (1, ("mnist", "tlstm_3d", 5), 0.80),
        (1, ("wikipedia", "tlstm_2d", 4), 1.7),
        (3, ("wikipedia", "slstm", 4), 1.45),
        (3, ("addition", "tlstm_2d_no_memory_convolution", 10), 30),
        (3, ("permuted_mnist", "slstm", 5), 0.99),
        (4, ("mnist", "tlstm_2d_no_feedback", 5), 0.90),
        (4, ("wikipedia", "tlstm_2d_no_feedback", 4), 1.0),
        (4, ("memorization", "tlstm_2d_no_feedback", 4), 20),
        (5, ("memorization", "tlstm_3d", 7), 900),
        (5, ("wikipedia", "tlstm_3d", 3), 1.6),
        (6, ("addition", "tlstm_3d_ln", 7), 10),
        (6, ("wikipedia", "tlstm_3d_cn", 1), 1.7),
        (6, ("mnist", "tlstm_3d_ln", 3), 0.999),
        (7, ("wikipedia", "tlstm_3d_cn", 2), 1.0),
        (8, ("addition", "slstm", 1), 1),
        (8, ("memorization", "tlstm_3d_cn", 7), 1),
    ],
)
def test_one_result_against_a_claim_is_enough(number, place, value):
    judgement = judged(number, worlds.world({place: value}, only=place[0]))
    assert judgement.verdict == "does not hold"
    (against,) = [each for each in judgement.evidence if each.verdict == "does not hold"]
    assert against.task == place[0]
    assert "contradict" in judgement.reason


@pytest.mark.parametrize("number", range(1, 9))
def test_without_the_runs_that_it_compares_a_claim_is_undecided(number):
    assert verdicts([], []) == ["undecided"] * 8
    task = CLAIMS[number - 1].tasks[0]
    kept = [record for record in worlds.world() if record.task != task]
    measured = [each for each in MEASURED if each.case.task != task]
    judgement = judged(number, kept, measured)
    assert judgement.verdict == "undecided"
    assert f"Nothing to compare at the paper's scale on the paper's data: {_title(task)}" in (
        judgement.reason
    )


def _title(task: str) -> str:
    return tables.TITLES.get(task, task.capitalize())


def test_a_missing_run_is_named():
    place = ("addition", "tlstm_3d", 7)
    kept = [each for each in worlds.world() if (each.task, each.model, each.depth) != place]
    judgement = judged(5, kept)
    assert judgement.verdict == "undecided"
    assert "Addition: 2 agree, 1 missing." in judgement.reason
    (missing,) = [
        finding
        for each in judgement.evidence
        for finding in each.findings
        if finding.answer == "missing"
    ]
    assert missing.basis == "not run: 3D tLSTM, L = 7"


@pytest.mark.parametrize("scale", ["smoke", "short"])
def test_smaller_scales_decide_nothing_but_are_told(scale):
    judgements = judge_all(worlds.world(scale=scale))
    assert {judgement.verdict for judgement in judgements} == {"undecided"}
    for judgement in judgements[2:]:
        large = [each for each in judgement.evidence if "mnist" not in each.task]
        assert {each.verdict for each in large} == {"holds"}  # few images need large differences
        assert not any(each.decides for each in judgement.evidence)


@pytest.mark.parametrize(
    ("stand_in", "task"),
    [
        ("digits", "mnist"),
        ("permuted_digits", "permuted_mnist"),
        ("wikipedia_sample", "wikipedia"),
        ("python_topics", "wikipedia"),
    ],
)
def test_stand_in_data_decide_nothing_and_are_compared_as_what_they_stand_in_for(stand_in, task):
    records = [
        record.model_copy(update={"task": stand_in if record.task == task else record.task})
        for record in worlds.world()
    ]
    judgement = judged(5, records)
    assert judgement.verdict == "undecided"
    (aside,) = [each for each in judgement.evidence if not each.decides]
    assert (aside.task, aside.verdict) == (stand_in, "holds")


def test_a_run_that_sees_ahead_agrees_and_contradicts_nothing():
    """3D tLSTM+LN predicts what it has seen where L > 1, and its bits per character fall to 0."""
    ahead = {("wikipedia", "tlstm_3d_ln", depth): 0.01 for depth in (2, 3, 4)}
    normalized = {"model": {"core": {"normalization": "layer"}}}
    records = [
        each.model_copy(update={"config": each.config | normalized} if "ln" in each.model else {})
        for each in worlds.world(ahead)
    ]
    findings = [
        finding
        for number in (6, 7)
        for each in judged(number, records).evidence
        if each.task == "wikipedia"
        for finding in each.findings
    ]
    of_ahead = [f for f in findings if "LN, L = 1" not in f.compared and "LN, L" in f.compared]
    assert len(of_ahead) == 5  # claim 6 at L = 2, 3, 4 and claim 7 at L = 2, twice
    assert {(each.answer, each.basis) for each in of_ahead} == {
        ("unclear", "a side predicts what it has seen")
    }


def test_one_seed_is_not_enough_for_a_small_difference_and_several_are():
    closer = {("mnist", "tlstm_3d", depth): 0.972 for depth in (3, 5)}
    assert judged(5, worlds.world(closer)).verdict == "undecided"
    seeds = [
        record
        for seed in range(4)
        for record in worlds.world(
            {
                (task, model, depth): value * (1 + 2e-4 * seed)
                for (task, model, depth), value in (worlds.results() | closer).items()
            },
            seed=seed,
        )
    ]
    judgement = judged(5, seeds)
    assert judgement.verdict == "holds"
    bases = {finding.basis for each in judgement.evidence for finding in each.findings}
    assert bases == {"4 and 4 seeds: 95% interval"}


def test_seeds_that_differ_more_than_the_means_decide_nothing():
    chance = np.random.default_rng(0)
    records = [
        record
        for seed in range(3)
        for record in worlds.world(
            {
                ("mnist", model, depth): float(chance.uniform(0.5, 0.9))
                for model in ("tlstm_2d", "tlstm_3d")
                for depth in (3, 5)
            },
            seed=seed,
        )
    ]
    (evidence,) = [each for each in judged(5, records).evidence if each.task == "mnist"]
    assert {finding.answer for finding in evidence.findings} == {"unclear"}


def test_an_unsolved_run_counts_as_one_that_needed_the_whole_budget():
    unsolved = worlds.run(
        ("addition", "tlstm_2d", 4),
        900,
        samples_to_threshold=None,
        outcome="diverged",
        samples=30_000,  # it ended early, which is no merit
    )
    others = [r for r in worlds.world(only="addition") if (r.model, r.depth) != ("tlstm_2d", 4)]
    (evidence,) = judged(5, [*others, unsolved]).evidence
    assert evidence.findings[0].answer == "agrees"
    assert evidence.findings[0].effect.startswith("0.044 × the samples")  # 40K of 900K


@pytest.mark.parametrize(
    ("second", "answered"), [(0.4, "unclear"), (0.49, "unclear"), (0.6, "contradicts")]
)
def test_plateaus_on_which_both_ended_decide_nothing(second, answered):
    places = ("addition", "tlstm_3d", 4), ("addition", "tlstm_2d", 4)
    ended = [
        worlds.run(
            place,
            900,
            samples_to_threshold=None,
            outcome="budget spent",
            test={"accuracy": accuracy, "loss": 2.0},
            best={"accuracy": accuracy, "loss": 2.0},
        )
        for place, accuracy in zip(places, (0.2, second), strict=True)
    ]
    there = {(record.model, record.depth) for record in ended}
    others = [r for r in worlds.world(only="addition") if (r.model, r.depth) not in there]
    judgement = judged(5, [*others, *ended])
    (evidence,) = judgement.evidence
    assert evidence.findings[0].answer == answered
    assert judgement.with_plateaus == "does not hold"
    changed = plateau_verdicts(judge_all([*others, *ended]))
    assert ("claim 5 (does not hold)" in changed) == (answered == "unclear")
    assert evidence.findings[0].effect.startswith(f"{20 - 100 * second:.2f} points")
    assert ("neither got half" in evidence.findings[0].basis) == (answered == "unclear")


@pytest.mark.parametrize("experiment", ["width", "choices", "recipe"])
def test_runs_of_other_widths_and_settings_are_left_out(experiment):
    other = worlds.run(("addition", "tlstm_2d", 4), 1, channels=16, experiment=experiment)
    usual = worlds.world(only="addition")
    expected = verdicts(usual)
    assert verdicts([other, *usual]) == expected
    assert verdicts([other.model_copy(update={"experiment": "fig4"}), *usual]) != expected


# Claim 2


def test_runtime_over_depth_is_the_benchmarks():
    times = benchmark_times(MEASURED)
    assert set(times["task"]) == {*DEPTHS, "wikipedia_sample"}
    stack = times[(times["model"] == "slstm") & (times["task"] == "addition")]
    per_layer = stack["microseconds"] / stack["depth"]
    assert per_layer.max() == pytest.approx(per_layer.min(), rel=0.05)  # as `everything` makes it


def slower(factor: dict[int, float], model: str):
    """The measurements, a model's times multiplied by a factor for its depth."""
    for each in MEASURED:
        case, timing = each.case, each.training and each.training.timing
        if case.model == model and timing:
            longer = [time * factor[case.depth] for time in timing.microseconds]
            times = timing.model_copy(update={"microseconds": longer})
            training = each.training.model_copy(update={"timing": times})
            each = each.model_copy(update={"training": training})
        yield each


def test_runtime_that_grows_or_does_not_ends_claim_2():
    depths = {depth for every in DEPTHS.values() for depth in every}
    growing = list(slower({depth: depth**0.6 for depth in depths}, "tlstm_2d"))
    assert judged(2, worlds.world(), growing).verdict == "does not hold"
    between = list(slower({depth: depth**0.4 for depth in depths}, "tlstm_2d"))
    assert judged(2, worlds.world(), between).verdict == "undecided"
    flat = list(slower({depth: 1 / depth for depth in depths}, "slstm"))
    assert judged(2, worlds.world(), flat).verdict == "does not hold"


def test_parameters_that_grow_with_depth_end_claim_2():
    records = [
        record.model_copy(update={"parameters": 12_345 * record.depth})
        if record.model == "tlstm_2d"
        else record
        for record in worlds.world()
    ]
    assert judged(2, records).verdict == "does not hold"


def test_runtimes_that_runs_measured_and_quick_measurements_decide_nothing():
    assert judged(2, worlds.world(), []).verdict == "undecided"
    quick = [on_processor(each, quick=True) for each in MEASURED]
    judgement = judged(2, worlds.world(), quick)
    assert judgement.verdict == "undecided"
    assert "quick" in {each.scale for each in judgement.evidence if not each.decides}
