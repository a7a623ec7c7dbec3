"""Made-up records; of them, runs in which every claim of the paper holds."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tlstm.records.schema import CurvePoint, Hardware, Record
from tlstm.reporting.comparison import DEPTHS, GENERATED, LABELS

PUBLISHED = Path(__file__).parents[1] / "results" / "published.csv"
STARTED = datetime(2025, 3, 1, 12, tzinfo=UTC)
H200 = Hardware(device="NVIDIA H200", devices=1, cores=16, threads=8, system="Linux")
CPU = Hardware(device="AMD EPYC 9R14 Processor", devices=1, cores=2, threads=2, system="Linux")
# Every configuration's results at the depths of the paper's figures
BITS = {  # per character
    "slstm": (1.30, 1.29, 1.50, 1.50),
    "tlstm_2d": (1.60, 1.60, 1.45, 1.40),
    "tlstm_2d_no_memory_convolution": (1.60, 1.60, 1.50, 1.50),
    "tlstm_2d_no_feedback": (1.30, 1.29, 1.50, 1.50),
    "tlstm_3d": (1.60, 1.60, 1.40, 1.30),
    "tlstm_3d_ln": (1.50, 1.50, 1.40, 1.30),
    "tlstm_3d_cn": (1.50, 1.50, 1.30, 1.20),
}
SAMPLES = {  # to the threshold, in thousands; the one that is to be first needs 8
    "slstm": (900, 100, 300, 900),
    "tlstm_2d": (900, 100, 100, 100),
    "tlstm_2d_no_memory_convolution": (900, 100, 300, 900),
    "tlstm_2d_no_feedback": (900, 300, 300, 300),
    "tlstm_3d": (900, 40, 40, 40),
    "tlstm_3d_ln": (400, 40, 40, 40),
    "tlstm_3d_cn": (400, 18, 18, 18),
}
ACCURACY = {
    "slstm": (0.90, 0.95, 0.95),
    "tlstm_2d": (0.90, 0.97, 0.97),
    "tlstm_2d_no_memory_convolution": (0.90, 0.95, 0.95),
    "tlstm_2d_no_feedback": (0.90, 0.97, 0.97),
    "tlstm_3d": (0.90, 0.98, 0.98),
    "tlstm_3d_ln": (0.92, 0.97, 0.97),
    "tlstm_3d_cn": (0.93, 0.99, 0.99),
}
FIRST = {("addition", "tlstm_3d_cn", 7): 8, ("memorization", "tlstm_3d_cn", 10): 8}
BUDGET = 1_000_000
SETTINGS = {"slstm": {}, "tlstm_2d_no_feedback": {"kernel_size": 2}}

CHANNELS = {
    ("paper", "addition"): 400,
    ("smoke", "addition"): 48,
    ("smoke", "memorization"): 24,
}  # other runs have 100
TASKS = {
    "paper": {"digits": 15, "base": 10, "symbols": 20, "alphabet": 64},
    "smoke": {"digits": 2, "base": 6, "symbols": 4, "alphabet": 8},
}

Place = tuple[str, str, int]  # task, model, L


def make_record(**changes) -> Record:
    values = {
        "identifier": "0123456789abcdef",
        "experiment": "fig4",
        "scale": "smoke",
        "task": "addition",
        "model": "tlstm_3d_cn",
        "label": "3D tLSTM+CN",
        "depth": 2,
        "channels": 24,
        "seed": 0,
        "parameters": 12_345,
        "samples": 3_000,
        "samples_to_threshold": None,
        "threshold": 0.99,
        "best": {"accuracy": 0.5, "loss": 1.5},
        "last": {"accuracy": 0.4, "loss": 1.75},
        "test": {"accuracy": 0.45, "loss": 1.6},
        "selected_by": "highest validation accuracy",
        "milliseconds_per_timestep": 0.125,
        "wall_seconds": 60.0,
        "device_seconds": 60.0,
        "outcome": "budget spent",
        "curve": [{"samples": 3_000, "accuracy": 0.5, "loss": 1.5, "seconds": 30.0}],
        "started": STARTED,
        "finished": STARTED + timedelta(minutes=1),
        "commit": None,
        "modified": True,
        "versions": {"python": "3.11.7"},
        "hardware": CPU,
        "overrides": ["task=addition", "note='two words'"],
        "config": {"seed": 0, "task": {"digits": 2}, "nothing": None, "list": [1, 2.5, "x"]},
    }
    return Record(**(values | changes))


def loss_at(place: int) -> float | None:
    """Losses in no order, some of them not finite."""
    return None if place % 9 == 4 else (place * 37 % 101) / 50


def points(accuracies: Iterable[float]) -> list[CurvePoint]:
    return [
        CurvePoint(samples=10 * place, accuracy=accuracy, loss=loss_at(place), seconds=place)
        for place, accuracy in enumerate(accuracies)
    ]


def results() -> dict[Place, float]:
    """What every run of the paper's figures came to, in its task's unit."""
    kinds = {"wikipedia": BITS, "addition": SAMPLES, "memorization": SAMPLES}
    found = {
        (task, model, depth): value
        for task, depths in DEPTHS.items()
        for model in LABELS
        for depth, value in zip(depths, kinds.get(task, ACCURACY)[model], strict=True)
    }
    return found | FIRST


def made_up(scale: str, task: str, model: str, depth: int, seed: int = 0, **changes) -> Record:
    """A run that the paper may have or not, of the size that its scale gives it."""
    place = task, model, depth
    sizes = {"channels": CHANNELS[scale, task]} if (scale, task) in CHANNELS else {}
    usual = 100 if task in GENERATED else 0.5
    return run(place, results().get(place, usual), seed, scale, **(sizes | changes))


def run(place: Place, value: float, seed: int = 0, scale: str = "paper", **changes) -> Record:
    """The record of a run; from its value come its metrics, samples and curve."""
    task, model, depth = place
    name = f"{scale} {task} {model} {depth} {seed} {changes}"
    rank = {"rank": int(model[6])} if model.startswith("tlstm") else {}
    core = rank | SETTINGS.get(model, {"kernel_size": 3, "memory_convolution": True})
    values = {
        "identifier": hashlib.sha256(name.encode()).hexdigest()[:16],
        "experiment": {"wikipedia": "fig3", "mnist": "fig5", "permuted_mnist": "fig5"}.get(
            task, "fig4"
        ),
        "scale": scale,
        "task": task,
        "model": model,
        "label": LABELS.get(model, model),
        "depth": depth,
        "channels": 100,
        "seed": seed,
        "milliseconds_per_timestep": 0.01 * (depth if model == "slstm" else 1),
        "hardware": H200 if scale == "paper" else CPU,
        "overrides": [f"task={task}", f"model={model}", f"model.depth={depth}", f"seed={seed}"],
        "config": {
            "seed": seed,
            "task": TASKS.get(scale, TASKS["paper"]),
            "model": {"name": model, "depth": depth, "core": core},
            "training": {"learning_rate": 0.001},
            "initialization": {"name": "embedding", "hidden_range": 0.08, "input_range": "normal"},
            "trainer": {"accelerator": "auto"},
        },
    }
    return make_record(**(values | _outcome(task, value) | changes))


def _outcome(task: str, value: float) -> dict[str, object]:
    if task == "wikipedia":
        metrics = {"loss": value * math.log(2), "accuracy": 0.5, "bits_per_character": value}
        return _metrics(metrics, samples=BUDGET)
    if task in GENERATED:
        samples = round(1000 * value)
        solved = {"samples_to_threshold": samples, "outcome": "solved"}
        return _metrics({"accuracy": 0.995, "loss": 0.02}, samples) | solved
    return _metrics({"accuracy": value, "loss": 1 - value}, samples=BUDGET)


def _metrics(metrics: Mapping[str, float], samples: int) -> dict[str, object]:
    ends = [(samples // 10, metrics["accuracy"] / 2, 3.0)]
    ends.append((samples, metrics["accuracy"], metrics["loss"]))
    curve = [
        CurvePoint(samples=seen, accuracy=accuracy, loss=loss, seconds=float(number))
        for number, (seen, accuracy, loss) in enumerate(ends)
    ]
    moments = {moment: dict(metrics) for moment in ("best", "last", "test")}
    return {"samples": samples, "curve": curve, **moments}


def world(
    different: Mapping[Place, float] | None = None, seed: int = 0, only: str = "", **changes
) -> list[Record]:
    """Runs at the paper's scale in which every claim holds, but for results that are different.

    Those of one task `only`, if it is named.
    """
    return [
        run(place, value, seed, **changes)
        for place, value in (results() | dict(different or {})).items()
        if only in ("", place[0])
    ]
