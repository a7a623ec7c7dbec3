"""Ranges of the values of a configuration."""

import math
import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlstm.utils import at_least

# What a whole number in the configuration may be at the least
MINIMA = {
    "seed": 0,
    "model.depth": 1,
    "model.channels": 1,
    "model.core.rank": 2,
    "model.core.kernel_size": 2,
    "training.batch_size": 1,
    "training.max_samples": 1,
    "training.samples_per_epoch": 1,
    "training.warmup_samples": 0,
    "training.patience": 0,
    "trainer.devices": 1,
    "trainer.num_nodes": 1,
    "trainer.threads": 1,
    "trainer.num_workers": 0,
    "trainer.steps_per_launch": 1,
}

# What a number in the configuration is above 0 and may be at the most
POSITIVE = {
    "training.learning_rate": math.inf,
    "initialization.scale": math.inf,
    "training.threshold": 1,
}

# What is a number from 0 on, and 0 where it is not used
FROM_ZERO = ("training.gradient_clip", "initialization.norm_gain")

# Such a number, or what else it may be
RANGES: dict[str, tuple[str | None, ...]] = {
    "initialization.hidden_range": (None,),
    "initialization.input_range": (None, "normal"),
    "initialization.bias_range": (None,),
}

OPTIONAL = {"model.core.rank", "model.core.kernel_size", "trainer.threads"}
AUTOMATIC = {"trainer.steps_per_launch"}  # "auto" leaves them to the machine
CHOICES = {  # what a word in the configuration may be
    "training.loss": ("answer", "all"),
    "trainer.float32_matmul_precision": ("highest", "high", "medium"),
}
LARGEST_SEED = 2**32 - 1  # NumPy takes no larger one


def check_values(config: DictConfig) -> None:
    """Refuse a configuration that no run can have, before anything is done.

    Raises:
        ValueError: a value is out of its range; the message names it and what it may be.
    """
    for key, minimum in MINIMA.items():
        value = OmegaConf.select(config, key)
        left_open = OPTIONAL if value is None else AUTOMATIC if value == "auto" else set()
        if key not in left_open:
            at_least(key, value, minimum)
    if config.seed > LARGEST_SEED:
        raise ValueError(f"seed must be at most {LARGEST_SEED}, got {config.seed}")
    _check_words(config)
    for key, maximum in POSITIVE.items():
        value = OmegaConf.select(config, key)
        if not _is_number(value) or not 0 < value <= maximum:
            limit = "" if maximum > 1 else f" and at most {maximum}"
            raise ValueError(f"{key} must be a number above 0{limit}, got {value!r}")
    for key in (*FROM_ZERO, *RANGES):
        value, others = OmegaConf.select(config, key), RANGES.get(key, ())
        if value not in others and (not _is_number(value) or value < 0):
            words = "".join(f" or {'null' if other is None else other}" for other in others)
            raise ValueError(f"{key} must be a number from 0 on{words}, got {value!r}")
    epoch = config.training.samples_per_epoch
    if config.training.max_samples < epoch:
        raise ValueError(
            f"training.max_samples must be at least training.samples_per_epoch={epoch}, "
            f"got {config.training.max_samples}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_words(config: DictConfig) -> None:
    """Refuse before the training what a record or a directory cannot be named with."""
    for group in ("scale", "task", "model", "initialization", "experiment"):
        name = config[group].name
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", str(name)):
            raise ValueError(f"{group}.name must be letters, digits, _, . and -, got {name!r}")
    for key in ("model.label", "output_dir", "resume", "task.data_dir", "task.path"):
        value = OmegaConf.select(config, key)
        if not isinstance(value, str) and (value is not None or not key.startswith("task.")):
            raise ValueError(f"{key} must be text, got {value!r}")
    for key, choices in CHOICES.items():
        value = OmegaConf.select(config, key)
        if value not in choices:
            raise ValueError(f"{key} must be one of {', '.join(choices)}, got {value!r}")
    capture = config.trainer.cuda_graph
    if capture != "auto" and not isinstance(capture, bool):
        raise ValueError(f"trainer.cuda_graph must be auto, true or false, got {capture!r}")
