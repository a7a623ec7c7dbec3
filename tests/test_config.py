"""Configuration files, the command line, and what a run is known by."""

import itertools
import json
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from tlstm.records.schema import Record
from tlstm.records.store import load
from tlstm.sweeping.grid import read_runs
from tlstm.training.config import (
    CONFIGURATIONS,
    PATHS,
    compose,
    flat,
    hyperparameters,
    identify,
    instantiate,
    plain,
    with_scale,
)
from tlstm.training.run import make_data, make_module

RESULTS = Path(__file__).parents[1] / "results"
GROUPS = {
    group.name: sorted(file.stem for file in group.glob("*.yaml"))
    for group in CONFIGURATIONS.iterdir()
    if group.is_dir() and group.name not in ("sizes", "published")
}
# Those of `test_comparators` have sizes of their own
MODELS = [
    name
    for name in GROUPS["model"]
    if "comparators" not in (CONFIGURATIONS / "model" / f"{name}.yaml").read_text("utf-8")
]


def identifier(*overrides: str) -> str:
    return compose(["scale=smoke", *overrides]).identifier


def refusal(overrides: list[str]) -> str:
    """What a command line is refused with."""
    with pytest.raises(ValueError, match=r".") as caught:
        compose(["scale=smoke", *overrides])
    return str(caught.value)


def as_override(key: str, value: object) -> str:
    """A leaf as it is written on the command line."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


@pytest.mark.parametrize("scale", GROUPS["scale"])
@pytest.mark.parametrize("task", sorted({*GROUPS["task"]} - {"text_file"}))  # has no file
@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_made_for_every_task_at_every_scale(
    model: str, task: str, scale: str
) -> None:
    config = compose([f"scale={scale}", f"task={task}", f"model={model}"]).config
    assert (config.model.name, config.task.name, config.scale.name) == (model, task, scale)
    with torch.device("meta"):
        core = make_module(config, make_data(config)).network.core
    assert (core.depth, core.channels) == (config.model.depth, config.task.channels)


@pytest.mark.parametrize("model", MODELS)
def test_depth_is_what_it_is_called(model: str) -> None:
    for depth in (1, 4, 7, 10):
        config = compose(["scale=smoke", f"model={model}", f"model.depth={depth}"]).config
        with torch.device("meta"):
            core = instantiate(config.model.core, input_size=3)
        assert core.depth == depth
        assert core.delay == (0 if model.startswith(("s", "grid")) else depth - 1)


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, choice) for group in sorted(GROUPS) for choice in GROUPS[group]],
)
def test_every_file_composes(group: str, choice: str) -> None:
    config = compose(with_scale([f"{group}={choice}"])).config
    assert config[group].get("name", choice) == choice
    assert plain(config).keys() >= set(GROUPS)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("addition", {"task.digits": 15, "model.channels": 400, "training.max_samples": 600_000}),
        (
            "memorization",
            {
                "task.symbols": 20,
                "task.alphabet": 64,
                "model.channels": 100,
                "training.max_samples": 500_000,
            },
        ),
    ],
)
def test_the_papers_settings(task: str, settings: dict[str, int]) -> None:
    config = compose(["scale=paper", f"task={task}"]).config
    common = {
        "training.batch_size": 15,
        "training.learning_rate": 0.001,
        "training.threshold": 0.99,
        "model.core.forget_bias": 1.0,
        "model.core.kernel_size": 3,
    }
    found = flat(config)
    assert {key: found[key] for key in common | settings} == common | settings
    module = make_module(config, make_data(config))
    (group,) = module.configure_optimizers().param_groups
    assert type(module.configure_optimizers()) is torch.optim.Adam
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.001, (0.9, 0.999), 0)


@pytest.mark.parametrize(
    "override",
    [
        "logger=csv",
        "logger.project=another",
        "output_dir=elsewhere",
        "resume=never",
        "trainer.devices=2",
        "trainer.threads=1",
        "trainer.num_workers=2",
        "trainer.accelerator=cpu",
        "trainer.float32_matmul_precision=high",
        "trainer.cuda_graph=false",
        "trainer.steps_per_launch=20",
        "experiment=fig4",
        "training.loss=answer",
        "training.gradient_clip=0",
        "training.warmup_samples=0",
        "training.optimizer=null",
        "training.rate_decay=null",
        "initialization=embedding",
        "initialization.scale=1",
        "initialization.hidden_range=0.08",
        "initialization.input_range=normal",
        "initialization.bias_range=0.0",
        "initialization.norm_gain=1",
        "task.alignment=left",
        "task.min_digits=0",
        "task.max_zero_fraction=0",
        "model.depth=4",
        "seed=0",
    ],
)
def test_what_decides_nothing_changes_no_identifier(override: str) -> None:
    assert identifier(override) == identifier()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "model=tlstm_3d",
        "model.depth=3",
        "model.channels=47",
        "model.core.forget_bias=4",
        "task=memorization",
        "task.digits=3",
        "task.validation_samples=499",
        "training.batch_size=30",
        "training.learning_rate=0.002",
        "training.max_samples=63_000",
        "training.samples_per_epoch=1_500",
        "training.threshold=0.9",
        "training.loss=all",
        "training.loss=sum",
        "training.optimizer=sgd",
        "training.rate_decay=0.5",
        "training.gradient_clip=1",
        "training.warmup_samples=15_000",
        "initialization=torch7",
        "initialization.scale=2",
        "initialization.hidden_range=null",
        "initialization.hidden_range=0.1",
        "initialization.input_range=null",
        "initialization.input_range=1",
        "initialization.bias_range=null",
        "initialization.norm_gain=0.1",
        "task.alignment=right",
        "task.min_digits=1",
        "task.max_zero_fraction=0.5",
        "trainer.precision=64-true",
        "trainer.precision=bf16-mixed",
        "trainer.float32_matmul_precision=highest",
        "trainer.float32_matmul_precision=medium",
        "scale=paper",
    ],
)
def test_what_decides_the_result_changes_the_identifier(override: str) -> None:
    assert identifier(override) != identifier()


def committed_records() -> list[Record]:
    stores = (load(RESULTS, experiment) for experiment in GROUPS["experiment"])
    records = list(itertools.chain.from_iterable(stores))
    paper = {"fig3", "fig4", "fig5", "table1", "table2", "table3"}
    assert {record.experiment for record in records} >= {*paper, "choices", "recipe"}
    return records


def assert_command_repeats(record: Record) -> None:
    run = compose(record.overrides)
    found = run.identifier, plain(run.config)["task"]
    assert found == (record.identifier, record.config["task"])


def test_committed_records_are_still_those_of_their_commands() -> None:
    """So that what is recorded is not trained again, and can be repeated.

    Commands are composed until every setting, every pair of files and every set of keys was.
    """
    seen: set[object] = set()
    for record in committed_records():
        assert identify(record.config) == record.identifier
        given = [text for text in record.overrides if not text.startswith(("seed=", "experiment="))]
        keys = [text.partition("=")[0] for text in given]
        files = [text for key, text in zip(keys, given, strict=True) if key in GROUPS]
        kinds = {*given, frozenset(keys), *itertools.combinations(files, 2)}
        if kinds - seen:
            assert_command_repeats(record)
        seen |= kinds


@pytest.mark.slow
def test_every_committed_record_is_still_that_of_its_command() -> None:
    for record in committed_records():
        assert_command_repeats(record)


def test_a_value_is_the_same_wherever_it_comes_from() -> None:
    """The smoke scale's numbers given one by one are the smoke scale."""
    config = compose(["scale=smoke"]).config
    given = {key: value for key, value in flat(config).items() if key.startswith("task.")}
    overrides = [as_override(key, value) for key, value in given.items()]
    precision = f"trainer.precision={config.trainer.precision}"
    written_out = compose(["scale=paper", *overrides, precision])
    assert written_out.identifier == identifier()


def test_directories_are_named_by_what_they_hold() -> None:
    run = compose(["scale=smoke", "experiment=fig4", "output_dir=here", "seed=5", "model.depth=7"])
    assert run.directory.parent == Path("here/fig4").resolve()
    assert run.directory.name == f"addition-tlstm_3d_cn-L7-seed5-{run.identifier[:8]}"
    assert len(run.identifier) == 16


def test_the_machine_chooses_the_scale_unless_it_is_given() -> None:
    default = "paper" if torch.cuda.is_available() else "smoke"
    assert with_scale(["seed=1"]) == ["seed=1", f"scale={default}"]
    assert with_scale(["scale=paper"]) == ["scale=paper"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        # Keys and choices that are not there
        ("model.dept=3", ["model.dept is unknown", "depth", "did you mean depth?"]),
        ("modle.depth=3", ["modle.depth is unknown", "did you mean model?"]),
        ("model.core.depth=3", ["model.core.depth is unknown", "kernel_size"]),
        ("seed.x=3", ["seed.x is unknown", "seed is a single value"]),
        ("hydra.job.chdir=true", ["hydra.job.chdir is unknown"]),
        ("model=foo", ["model/foo", *MODELS]),
        ("scale=foo", ["scale/foo", "paper", "smoke"]),
        ("task=copying", ["task/copying", "addition", "memorization"]),
        ("+a=1", ["+a=1", "key=value"]),
        ("++seed=1", ["++seed=1", "key=value"]),
        ("~seed", ["~seed", "key=value"]),
        ("foo", ["foo"]),
        # Values that cannot be
        ("model.depth=0", ["model.depth", "at least 1", "got 0"]),
        ("model.depth=foo", ["model.depth", "integer of at least 1", "got 'foo'"]),
        ("model.depth=1.5", ["model.depth", "integer of at least 1", "got 1.5"]),
        ("model.depth=true", ["model.depth", "integer of at least 1", "got True"]),
        ("model.depth=[1]", ["model.depth", "single value", "got [1]"]),
        ("model.core.normalization={_target_: os.getcwd}", ["single value", "os.getcwd"]),
        ("seed=${training.batch_size}", ["seed", "no reference"]),
        ("model.depth=null", ["model.depth", "integer of at least 1", "got None"]),
        ("model.channels=0", ["model.channels", "at least 1", "got 0"]),
        ("model.core.kernel_size=1", ["model.core.kernel_size", "at least 2", "got 1"]),
        ("model.core.rank=1", ["model.core.rank", "at least 2", "got 1"]),
        ("seed=-1", ["seed", "at least 0", "got -1"]),
        ("seed=null", ["seed", "at least 0", "got None"]),
        ("seed=4294967296", ["seed", "4294967295", "got 4294967296"]),
        ("training.batch_size=0", ["training.batch_size", "at least 1", "got 0"]),
        ("training.learning_rate=-1", ["training.learning_rate", "above 0", "got -1"]),
        ("training.learning_rate=0", ["training.learning_rate", "above 0", "got 0"]),
        ("training.learning_rate=nan", ["training.learning_rate", "above 0", "got nan"]),
        ("training.learning_rate=inf", ["training.learning_rate", "above 0", "got inf"]),
        ("training.learning_rate=fast", ["training.learning_rate", "above 0", "got 'fast'"]),
        ("training.threshold=99", ["training.threshold", "at most 1", "got 99"]),
        ("training.gradient_clip=-1", ["training.gradient_clip", "from 0 on", "got -1"]),
        ("training.gradient_clip=null", ["training.gradient_clip", "from 0 on", "got None"]),
        ("training.warmup_samples=-1", ["training.warmup_samples", "at least 0", "got -1"]),
        ("initialization.scale=0", ["initialization.scale", "above 0", "got 0"]),
        ("initialization.scale=true", ["initialization.scale", "above 0", "got True"]),
        ("initialization.hidden_range=-1", ["hidden_range", "from 0 on or null", "got -1"]),
        ("initialization.hidden_range=wide", ["hidden_range", "or null", "got 'wide'"]),
        ("initialization.bias_range=zero", ["bias_range", "or null", "got 'zero'"]),
        ("initialization.input_range=ones", ["input_range", "or null or normal", "got 'ones'"]),
        ("initialization.norm_gain=null", ["norm_gain", "from 0 on", "got None"]),
        ("initialization=xavier", ["initialization/xavier", "torch7", "embedding"]),
        ("training.loss=everything", ["training.loss", "answer, all, sum", "got 'everything'"]),
        ("training.optimizer=adam", ["training.optimizer", "null, rmsprop, sgd", "got 'adam'"]),
        ("training.momentum=0.9", ["training.momentum=0.9 needs training.optimizer"]),
        ("training.rate_decay=0", ["training.rate_decay", "above 0 and at most 1", "got 0"]),
        ("training.decay_patience=2", ["training.decay_patience=2 needs training.rate_decay"]),
        ("training.max_samples=100", ["training.max_samples", "at least", "3000", "got 100"]),
        ("training.max_samples=null", ["training.max_samples", "at least 1", "got None"]),
        ("training.samples_per_epoch=0", ["training.samples_per_epoch", "at least 1", "got 0"]),
        ("trainer.devices=0", ["trainer.devices", "at least 1", "got 0"]),
        ("trainer.threads=0", ["trainer.threads", "at least 1", "got 0"]),
        ("trainer.num_workers=-1", ["trainer.num_workers", "at least 0", "got -1"]),
        ("trainer.steps_per_launch=0", ["trainer.steps_per_launch", "at least 1", "got 0"]),
        ("trainer.steps_per_launch=all", ["trainer.steps_per_launch", "got 'all'"]),
        ("trainer.devices=auto", ["trainer.devices", "at least 1", "got 'auto'"]),
        ("trainer.cuda_graph=1", ["trainer.cuda_graph", "auto, true, false", "got 1"]),
        (
            "trainer.cuda_graph=always",
            ["auto, true, false", "got 'always'"],
        ),
        ("trainer.float32_matmul_precision=foo", ["trainer.float32_matmul_precision", "highest"]),
        # What would otherwise be found out when the record is written, after the training
        ("experiment.name=a/b", ["experiment.name", "a/b"]),
        ("model.name=../b", ["model.name", "../b"]),
        *(
            (f"{group}.name={name}", [f"{group}.name", "letters"])
            for group in ("task", "model", "experiment", "initialization")
            for name in ("0", "null", "true", "../../x", '"my digits"', "..", "a" * 65)
        ),
        ("task.forget_bias=inf", ["task.forget_bias must be a finite number up to 1e+37, got inf"]),
        ("task.channels=nan", ["model.channels", "got nan"]),
        ("model.core.forget_bias=-inf", ["model.core.forget_bias", "got -inf"]),
        ("model.label=a\nb", ["model.label", "control characters"]),
        ("logger.project=", ["logger.project must be text, got ''"]),
        ("logger.wandb=hello world", ["logger.wandb must be one of true, false"]),
        ("logger.tensorboard=1", ["logger.tensorboard must be one of true, false"]),
        ("trainer.progress=nan", ["trainer.progress must be one of true, false"]),
        ("trainer.accelerator=tpu", ["trainer.accelerator must be one of auto, cpu, gpu"]),
        ("trainer.precision=32", ["trainer.precision must be one of 32-true, bf16-mixed"]),
        ("trainer.threads=1000000000", ["trainer.threads must be at most 1000"]),
        ("trainer.threads=1e9", ["trainer.threads must be an integer"]),
        *(
            (f"{key}={value}", [key, "a path"])
            for key in ("output_dir", "resume", "task.data_dir", "task.path")
            for value in ("", " ", "''", "${seed}")
        ),
        ("output_dir=null", ["output_dir", "null"]),
        ("output_dir=~nobody-of-this-name/x", ["output_dir", "no such user"]),
        ("task.data_module=os.system", ["one SequenceDataModule of tlstm, got os.system"]),
        ("task.data_module=tlstm.tasks.base.SequenceDataModule", ["task.data_module"]),
        ("model.core._target_=tlstm.tasks.addition.AdditionDataModule", ["model.core"]),
        ("training.loss=a'b", ["the value cannot be read", "quoted twice"]),
        # More than one value
        ("model.depth=1,2", ["model.depth=1,2", "one value", "tlstm.sweep"]),
        ("model.depth=range(1,3)", ["model.depth=range(1,3)", "one value", "tlstm.sweep"]),
        ("model=slstm,srnn", ["model=slstm,srnn", "one value", "tlstm.sweep"]),
        ("model=[slstm]", ["model"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals_name_the_key_and_what_it_may_be(override: str, said: list[str]) -> None:
    task = ["task=python_topics"] if "data_dir" in override or "path" in override else []
    message = refusal([*task, override])
    for words in said:
        assert words in message
    assert "\n" not in message
    assert "http" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "path", ["é/日", "a#b", "a=b", "x (copy)", "a'b", "a,b", "[x]", "{y}", "1e5", "a b"]
)
@pytest.mark.parametrize("key", PATHS)
def test_paths_are_taken_as_people_write_them(key: str, path: str, tmp_path: Path) -> None:
    """From the command line and from sweep files, in quotes or not, with ~ for the home."""
    home = Path.home()
    file = tmp_path / "sweep.yaml"
    sweep = {"program": "tlstm.train", "method": "grid", "command": ["train"]}
    for text, expected in ((path, path), (f'"{path}"', path), (f"~/{path}", f"{home}/{path}")):
        overrides = ["scale=smoke", "task=python_topics", f"{key}={text}"]
        run = compose(overrides)
        assert OmegaConf.select(run.config, key) == expected
        parameters = {"task": {"value": "python_topics"}, key: {"values": [text]}}
        file.write_text(yaml.safe_dump(sweep | {"parameters": parameters}), encoding="utf-8")
        (same,) = read_runs(file, ["scale=smoke"])
        assert same.config == run.config


@pytest.mark.parametrize("model", ["tlstm_3d_cn", "grid_lstm_tied"])
@pytest.mark.parametrize("task", ["memorization", "python_topics", "mnist"])
@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_a_configuration_that_wandb_hands_back_is_the_same_run(
    model: str, task: str, scale: str
) -> None:
    """W&B's server hands back all that the run has told it, and W&B's own, as Python writes it."""
    run = compose(
        [
            f"scale={scale}",
            f"task={task}",
            f"model={model}",
            "experiment=recipe",
            "model.depth=2",
            "output_dir=a (b)",
            "training.learning_rate=1e-05",
        ]
    )
    told = hyperparameters(run.config) | {"_wandb": {"t": {"1": [1, 2]}, "cli_version": "0.1"}}
    again = compose([f"{key}={value}" for key, value in told.items()])
    assert again.config == run.config
    assert again.directory == run.directory
    assert compose(again.overrides).directory == run.directory
    for other in ("depth=3", "label=another", "scale.sweep.model.depth=[9]"):
        assert other.partition("=")[0] in refusal([f"task={task}", "model.depth=2", other])


def test_what_is_refused_in_a_layer_is_said_in_its_own_words() -> None:
    config = compose(["scale=smoke", "model.core.normalization=batch"]).config
    with pytest.raises(ValueError, match=r"^normalization must be 'channel', 'layer' or None"):
        make_module(config, make_data(config))
    config = compose(["scale=smoke", "task.digits=0"]).config
    with pytest.raises(ValueError, match=r"^task.digits must be an integer of at least 1, got 0$"):
        make_data(config)
