"""The cases of the benchmark: the configurations at the paper's sizes, by suite."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from tlstm.ops import geometry
from tlstm.records.measurement import SUITES, Case, Suite, Target
from tlstm.records.models import MODELS, TASKS

TIMESTEPS = 50  # of a sequence by default
LARGE_TIMESTEPS = 20  # of the largest cases: each timestep is gigabytes under autograd
LARGE_OPERATIONS = 1e11  # of a forward pass of one timestep, at least
# Without a GPU: of a sequence, and operations of a forward pass of one timestep, at most
QUICK_TIMESTEPS: dict[Suite, int] = {"targets": 10, "tasks": 5, "size": 5, "step": 1}
QUICK_OPERATIONS: dict[Suite, float] = {"targets": 1.2e9, "tasks": 6e8, "size": 6e8, "step": 6e8}
WIKIPEDIA_CHANNELS = {  # at 10M parameters [paper]
    "slstm": 1120,
    "tlstm_2d": 901,
    "tlstm_2d_no_memory_convolution": 901,
    "tlstm_2d_no_feedback": 1120,
    "tlstm_3d": 522,
    "tlstm_3d_ln": 522,
    "tlstm_3d_cn": 522,
}
# Task, configuration, L, M (the figure's where None), required, goal; the last is Table 1's network
TARGETS: tuple[tuple[str, str, int, int | None, float, float], ...] = (
    ("mnist", "tlstm_2d", 5, None, 14, 8),
    ("mnist", "tlstm_3d_cn", 5, None, 24, 14),
    ("addition", "tlstm_2d", 10, None, 20, 10),
    ("addition", "tlstm_3d_cn", 7, None, 80, 55),
    ("memorization", "tlstm_3d_cn", 10, None, 28, 16),
    ("wikipedia", "tlstm_2d", 4, None, 65, 48),
    ("wikipedia", "tlstm_3d_cn", 4, None, 190, 130),
    ("wikipedia", "tlstm_3d_cn", 6, 1200, 2100, 1500),
)
TENSOR_SIZES = range(1, 11)


def make_case(
    suite: Suite, task: str, model: str, depth: int, channels: int | None = None, **changes: object
) -> Case:
    """Return a configuration at the sizes of a task.

    Args:
        suite: the purpose.
        task: a name of `TASKS`.
        model: a name of `MODELS`.
        depth: L.
        channels: M; the paper's where None.
        changes: of other attributes.
    """
    sizes, structure = TASKS[task], MODELS[model]
    values: dict[str, object] = {
        "suite": suite,
        "task": task,
        "model": model,
        "depth": depth,
        "channels": channels or sizes.channels or WIKIPEDIA_CHANNELS[model],
        "tensor_size": 1
        if structure.rank == 1
        else geometry.tensor_size(depth, structure.kernel_size),
        "input_size": sizes.input_size,
        "batch_size": sizes.batch_size,
        "timesteps": sizes.timesteps,
    }
    return Case.model_validate(values | structure._asdict() | changes)


def cases_of(suite: Suite) -> list[Case]:
    """Return the cases of a suite.

    targets: the configurations that have a target. tasks: the seven of Figures 3 to 5 at every
    depth and task. size: the 2D tLSTM with its number of parameters fixed, over P. step: single
    timesteps for use in real time.
    """
    if suite == "targets":
        return [
            make_case(suite, task, model, depth, channels, target=Target(required=most, goal=goal))
            for task, model, depth, channels, most, goal in TARGETS
        ]
    if suite == "tasks":
        return [
            make_case(suite, task, model, depth)
            for task, sizes in TASKS.items()
            for model in MODELS
            for depth in sizes.depths
        ]
    if suite == "size":
        return [
            make_case(suite, task, "tlstm_2d", tensor_size)
            for task in ("memorization", "addition")
            for tensor_size in TENSOR_SIZES
        ]
    return [
        make_case(suite, "mnist", model, 5, batch_size=1, timesteps=1)
        for model in ("tlstm_2d", "tlstm_3d_cn")
    ]


def select_cases(
    suites: Sequence[str], patterns: Sequence[str], timesteps: int | None, quick: bool
) -> list[Case]:
    """Return the cases to measure.

    Args:
        suites: names of suites; "all" is every one.
        patterns: of names, with * and ?; a case matches one of them. Empty: every case.
        timesteps: T, at most the task's own; None: at most 50, fewer if quick.
        quick: whether to leave out the cases that take long without a GPU.

    Raises:
        ValueError: no case matches, or all are too large.
    """
    names = [name for name in SUITES if name in suites or "all" in suites]
    every = [case for name in names for case in cases_of(name)]
    wanted = [f"*{pattern}*" for pattern in patterns or [""]]
    matching = [case for case in every if any(fnmatchcase(case.name, w) for w in wanted)]
    if not matching:
        known = ", ".join(sorted({case.name for case in every}))
        raise ValueError(f"--case matches none of {known}, got {', '.join(patterns)}")
    small = [c for c in matching if not quick or c.operations <= QUICK_OPERATIONS[c.suite]]
    if not small:
        raise ValueError("every case that was chosen is too large to be measured quickly")
    return [_shortened(case, timesteps, quick) for case in small]


def _shortened(case: Case, timesteps: int | None, quick: bool) -> Case:
    most = LARGE_TIMESTEPS if case.operations >= LARGE_OPERATIONS else TIMESTEPS
    if timesteps is not None:
        most = timesteps
    elif quick:
        most = QUICK_TIMESTEPS[case.suite]
    return case.model_copy(update={"timesteps": min(case.timesteps, most)})
