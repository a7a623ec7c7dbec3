"""The README: its code runs, its commands exist and work, its table of nn.LSTM is true."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.distributed.run import get_args_parser

import texts_for_tests
import tlstm.tasks
from texts_for_tests import write_text
from tlstm import (
    TensorizedLSTM,
    dashboards,
    evaluate,
    export,
    figures,
    memory_cells,
    results,
    sample,
    sweep,
    train,
)
from tlstm.bench import command as bench
from tlstm.reporting.pages import BEGIN, END
from tlstm.sweeping.grid import at_scale, points, read_runs, read_sweep_file
from tlstm.training.config import CONFIGURATIONS, compose
from tlstm.training.distributed import TORCHRUN
from tlstm.training.run import check_devices, make_data

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (ROOT / "src" / "tlstm" / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"```(\w+)\n(.*?)```", flags=re.DOTALL)
BLOCKS = FENCED.findall(README)
VARIANT = "tlstm_4d_cn"  # that the README adds
COMMANDS = [
    command.strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    for command in line.split("#")[0].split("&&")
]
TINY = [
    "training.max_samples=30",
    "training.samples_per_epoch=30",
    "training.batch_size=15",
    "model.channels=4",
    "model.depth=2",
    "logger=csv",
    "scale=smoke",
]
USES = tuple(
    f"python -m tlstm.{module}" for module in ("evaluate", "export", "memory_cells", "figures fig6")
)
STAND_INS = {"task=mnist": "task=digits", "task=wikipedia": "task=python_topics"}


def blocks(language: str) -> list[str]:
    return [block for found, block in BLOCKS if found == language]


def commands(start: str | tuple[str, ...]) -> list[str]:
    return [each for each in COMMANDS if each.startswith(start) and VARIANT not in each]


def in_comments(start: str) -> list[str]:
    """Return the commands in the comments of conf/trainer/ddp.yaml, for two machines."""
    text = (CONFIGURATIONS / "trainer" / "ddp.yaml").read_text(encoding="utf-8")
    joined = text.replace("\\\n#", "")
    found = re.findall(rf"^# *(?:srun )?({start} .*)", joined, flags=re.MULTILINE)
    assert found
    return [re.sub(r"\$host|\$SLURM_JOB_ID", "1", c.replace("$SLURM_NNODES", "2")) for c in found]


def test_python_blocks_run_and_say_what_comes_out() -> None:
    names: dict = {}
    exec(blocks("python")[0], names)
    assert names["output"].shape == (20, 8, 32)
    assert names["delayed"].shape == (50, 8, 32)
    assert names["y"].shape == (8, 32)
    assert names["padded"].shape == (50, 8, 32)
    assert names["h"].shape == (8, 4, 4, 32)


def test_there_is_a_command_to_reproduce_and_one_to_test() -> None:
    assert commands("make") == ["make reproduce-fig4", "make test"]


def test_every_figure_and_table_has_a_row_with_its_numbers_of_runs() -> None:
    """At smoke scale and the paper's, from the sweep files that its target trains."""
    rows = re.findall(r"^\| `-(\w+)` \|.*\| (\d+) \| (\d+) \|$", README, flags=re.MULTILINE)
    assert [name for name, *_ in rows] == ["fig3", "fig4", "fig5", "table1", "table2", "table3"]
    for name, *numbers in rows:
        for scale, number in zip(("smoke", "paper"), numbers, strict=True):
            files = sorted((ROOT / "sweeps").glob(f"{name}*.yaml"))
            assert sum(number_of_points(file, scale) for file in files) == int(number)


def number_of_points(file: Path, scale: str) -> int:
    return len(points(at_scale(read_sweep_file(file), [f"scale={scale}"]), []))


@pytest.mark.parametrize("command", sorted({*commands("make"), "make help"}))
def test_make_targets_exist(command: str) -> None:
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_target_named_in_the_readme_is_in_make_help() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in re.findall(r"`make ([a-z0-9-]+)", README):
        assert re.search(rf"^{target} ", done.stdout, flags=re.MULTILINE), target


@pytest.mark.parametrize("command", commands("python -m tlstm.train"))
def test_train_commands_train(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = shlex.split(command)[3:]
    asks_for_help = "--help" in arguments
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path, 400).rename("my.txt")
    if not asks_for_help:
        small = texts_for_tests.TINY if "task=text_file" in arguments else TINY
        arguments = [a for a in arguments if not a.startswith(("model.depth", "scale="))]
        arguments += [*small, f"output_dir={tmp_path}"]
        arguments = [a for a in arguments if not a.startswith("trainer")]  # see test_ddp.py
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    train.main()
    said = capsys.readouterr().out
    assert ("model=grid_lstm_tied" if asks_for_help else "test accuracy") in said


@pytest.mark.parametrize("command", commands("python -m tlstm.sweep"))
def test_sweep_commands_plan_their_runs(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(ROOT / a) if a.endswith(".yaml") else a for a in shlex.split(command)[3:]]
    shared = ["training.batch_size=10"] if "trainer=ddp" in arguments else []  # by two devices
    code = sweep.main([*arguments, *TINY, *shared, "--dry-run", f"output_dir={tmp_path}"])
    assert code == 0
    assert "to train at smoke scale" in capsys.readouterr().out


@pytest.mark.parametrize("command", commands("python -m tlstm.bench"))
def test_bench_commands_plan_their_measurements(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([*shlex.split(command)[3:], "--dry-run"]) == 0
    assert "measurements on" in capsys.readouterr().out


@pytest.mark.parametrize("command", commands("python -m tlstm.sample"))
def test_text_is_written_as_the_readme_says(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert sample.main([*shlex.split(command)[3:], "--characters", "3"]) == 0
    assert len(capsys.readouterr().out) > len("The ")


def test_what_was_trained_is_used_as_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands in their order, on a tiny run in the place of RUN, and then its three lines."""
    monkeypatch.chdir(tmp_path)
    train.run_command(["model=tlstm_3d_cn", "experiment=fig4", *TINY])
    (run,) = Path("runs/fig4").iterdir()
    run.rename("runs/fig4/RUN")
    mains = {"evaluate": evaluate, "export": export, "memory_cells": memory_cells}
    for command in commands(USES):
        module, *arguments = shlex.split(command.removeprefix("python -m tlstm."))
        assert {**mains, "figures": figures}[module].main(arguments) == 0
    assert "drew results/fig6/smoke-addition.svg" in capsys.readouterr().out
    names: dict = {"torch": torch}
    exec(blocks("python")[1], names)
    assert names["output"].shape == (20, 8, 4)


@pytest.mark.parametrize("command", [*commands("torchrun"), *in_comments("torchrun")])
def test_torchrun_commands_start_as_many_processes_as_devices(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own parser reads them; what they train has samples that can be shared."""
    options, started = get_args_parser().parse_known_args(shlex.split(command)[1:])
    number = int(options.nnodes.split(":")[-1]) * int(options.nproc_per_node)
    for name in TORCHRUN:
        monkeypatch.setenv(name, str(number))
    arguments = [options.training_script, *options.training_script_args, *started]
    assert options.module
    assert arguments[0] == "tlstm.train"
    digits = ["task=digits"] if "task=mnist" in arguments else []
    run = compose([*arguments[1:], *digits, "scale=paper"])
    check_devices(run.config)
    make_data(run.config)
    assert run.config.trainer.devices * run.config.trainer.num_nodes == number


@pytest.mark.parametrize("command", commands("python -m tlstm.dashboards"))
def test_dashboards_commands_save_both(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dashboards, "default_entity", lambda: "somebody")
    for name in ("workspace", "report"):
        saved = "{}/{} " + name
        monkeypatch.setattr(dashboards, f"save_{name}", saved.format)
    assert dashboards.main(shlex.split(command)[3:]) == 0
    assert capsys.readouterr().out == "somebody/tlstm workspace\nsomebody/tlstm report\n"


@pytest.mark.parametrize("command", commands("wandb sweep"))
def test_wandb_commands_name_files_that_are_there(command: str) -> None:
    assert (ROOT / shlex.split(command)[-1]).is_file()


def test_no_command_is_left_out() -> None:
    tested = (
        "git clone",
        "cd tlstm",
        "make",
        "python -m tlstm.train",
        "python -m tlstm.sweep",
        "wandb sweep",
        "wandb agent",
        "wandb sync",
        "python -m tlstm.dashboards",
        "tensorboard",
        "python -m tlstm.bench",
        "python -m tlstm.results",
        "python -m tlstm.figures",
        *USES,
        "python -m tlstm.sample",
        "torchrun",
    )
    assert [c for c in COMMANDS if c and not c.startswith(tested)] == []


def test_the_readme_is_short() -> None:
    written = README.partition(BEGIN)[0] + README.partition(END)[2]
    assert len(written.splitlines()) <= 150
    assert len(FENCED.sub("", written).split()) <= 1500


@pytest.fixture
def configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of all files of conf/, in the place of them."""
    copies = tmp_path / "conf"
    shutil.copytree(CONFIGURATIONS, copies)
    monkeypatch.setattr("tlstm.training.config.CONFIGURATIONS", copies)
    monkeypatch.chdir(tmp_path)
    return copies


def test_the_variant_of_the_readme_gets_into_figure_4(configurations: Path) -> None:
    """Its file, then its commands in their order, a tiny run in the place of the sweep's."""
    (block,) = blocks("yaml")
    assert yaml.safe_load(block)["name"] == VARIANT
    assert f"conf/model/{VARIANT}.yaml" in README
    (configurations / "model" / f"{VARIANT}.yaml").write_text(block, encoding="utf-8")
    core = compose([f"model={VARIANT}", "scale=smoke"]).config.model.core
    assert (core.rank, core.normalization) == (4, "channel")
    (made,) = [command for command in COMMANDS if VARIANT in command]
    make, target, settings = shlex.split(made)
    planned = subprocess.run(
        [make, "--dry-run", target, settings], cwd=ROOT, capture_output=True, text=True, check=True
    )
    model = settings.removeprefix("ARGUMENTS=")
    for task in ("addition", "memorization"):
        file = f"sweeps/fig4-{task}.yaml"
        assert f"tlstm.sweep {model} " in " ".join(planned.stdout.split())
        assert file in planned.stdout
        runs = read_runs(ROOT / file, [model, "scale=paper"])
        assert [run.config.model.depth for run in runs] == [1, 4, 7, 10]
    train.run_command([model, "task=memorization", "experiment=fig4", *TINY])
    own = ["--results", "own"]
    assert results.main(["copy", "--committed", str(ROOT / "results"), *own]) == 0
    assert results.main(["collect", "fig4", *own]) == 0
    assert figures.main(["fig4", *own]) == 0
    assert "| 4D tLSTM+CN" in Path("own/fig4/README.md").read_text(encoding="utf-8")
    assert "4D tLSTM+CN" in Path("own/fig4/smoke-memorization.svg").read_text(encoding="utf-8")


def test_the_task_of_the_map_trains_as_written(
    configurations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At smoke scale, in the sizes of its file there."""
    files = [
        tmp_path / path for path in re.findall(r"`(?:src/tlstm/)?(\w+/[\w/]*reversal\.\w+)`", MAP)
    ]
    for path, (_, block) in zip(files, FENCED.findall(MAP), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text(block, encoding="utf-8")
    monkeypatch.setattr("tlstm.tasks.__path__", [*tlstm.tasks.__path__, str(tmp_path / "tasks")])
    training = ["training.max_samples=1500", "model.depth=2", "logger=csv"]
    train.run_command(["task=reversal", "scale=smoke", *training])
    (record,) = Path("runs").glob("*/*/record.json")
    config = json.loads(record.read_text(encoding="utf-8"))["config"]
    assert (config["task"]["symbols"], config["training"]["samples_per_epoch"]) == (4, 1500)
    assert compose(["task=reversal", "scale=paper"]).config.task.symbols == 20


def test_moving_from_nn_lstm_as_the_table_says() -> None:
    torch.manual_seed(0)
    layer = TensorizedLSTM(3, 4, tensor_size=1, memory_convolution=False).double()
    reference = nn.LSTM(4, 4).double()

    def tensorized(rows: torch.Tensor) -> torch.Tensor:
        """Rows of the gates i, f, g, o in the order g, i, f, o."""
        i, f, g, o = rows.chunk(4)
        return torch.cat([g, i, f, o])

    with torch.no_grad():
        layer.weight_hidden[:, :, 0] = tensorized(reference.weight_ih_l0)
        layer.weight_hidden[:, :, 1] = tensorized(reference.weight_hh_l0)
        layer.bias_hidden.copy_(tensorized(reference.bias_ih_l0 + reference.bias_hh_l0))
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    output, (h, c) = layer(x)
    expected, (h_n, c_n) = reference(x @ layer.weight_input.T + layer.bias_input)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(h.transpose(0, 1), h_n, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(c.transpose(0, 1), c_n, rtol=1e-12, atol=1e-12)


def test_pictures_and_pages_are_there() -> None:
    for target in re.findall(r"\]\((results/[^)]+)\)", README):
        assert (ROOT / target).is_file(), target
