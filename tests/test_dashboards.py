"""Dashboards: W&B's workspace and report, saved on a local server; TensorBoard's HParams."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from commands import measure_quickly, run_directory, tiny, train_here
from tlstm import dashboards
from tlstm.training import loggers
from tlstm.training.config import compose
from wandb_backend import ENTITY, View
from wandb_server import WandbServer

ROOT = Path(__file__).parents[1]


def command(directory: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """The command with these variables of W&B and no others, and no files of the user's."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-m", "tlstm.dashboards", *arguments],
        cwd=directory,
        env=own | {"HOME": str(directory)} | variables,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def views(server: WandbServer) -> tuple[View, View]:
    """The only workspace and the only report."""
    workspace, report = sorted(server.views.values(), key=lambda view: view.type)
    assert (workspace.type, report.type) == ("project-view", "runs")
    return workspace, report


def without_ids(spec: Any) -> Any:
    """Return the content of a view, without ids, which change whenever it is saved."""
    if isinstance(spec, dict):
        return {key: without_ids(part) for key, part in spec.items() if key not in ("__id__", "id")}
    return [without_ids(part) for part in spec] if isinstance(spec, list) else spec


def panels(sections: list[dict[str, Any]]) -> list[str]:
    """Metrics and titles of the panels of all sections."""
    return [json.dumps(panel["config"]) for section in sections for panel in section["panels"]]


def test_workspace_and_report_are_saved_once_and_updated(tmp_path: Path) -> None:
    """Grouped by configuration and depth, with panels for every figure; again changes nothing."""
    with WandbServer() as server:
        code, out, said = command(tmp_path, **server.environment())
        assert code == 0, said
        workspace, report = views(server)
        assert server.project_names == ["tlstm"]
        shown = out.split()
        assert shown[0].startswith(f"{server.url}/{ENTITY}/tlstm?nw=")
        assert shown[1].endswith(f"--{report.id}")
        first = without_ids(workspace.spec)
        parts = report_parts(report)
        report.spec = {}
        assert command(tmp_path, **server.environment())[:2] == (0, out)
        again, report = views(server)
        assert without_ids(again.spec) == first
        assert report_parts(report) == parts
        assert server.project_names == ["tlstm"]

    (runs,) = workspace.spec["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == [
        f"{name}.value" for name in ("task", "label", "depth")
    ]
    drawn = "".join(panels(workspace.spec["section"]["panelBankConfig"]["sections"]))
    for metric in ("validation/accuracy", "samples_to_threshold", "milliseconds_per_timestep"):
        assert metric in drawn
    assert {group for _, groups, _ in parts for group in groups} >= experiments()
    for title, _, count in parts:
        assert count == 5, title


def report_parts(report: View) -> list[tuple[str, list[str], int]]:
    """Return title, groups of runs and number of panels of every part of the report."""
    blocks = report.spec["blocks"]
    titles = [part["children"][0]["text"] for part in blocks if part["type"] == "heading"]
    grids = [part["metadata"] for part in blocks if part["type"] == "panel-grid"]
    return [
        (title, grid["runSets"][0]["filters"]["filters"][0]["value"], panel_count(grid))
        for title, grid in zip(titles, grids, strict=True)
    ]


def panel_count(grid: dict[str, Any]) -> int:
    return len(grid["panelBankSectionConfig"]["panels"])


def experiments() -> set[str]:
    """The experiments that sweeps fill, from the shipped sweep files."""
    files = (ROOT / "sweeps").rglob("*.yaml")
    parameters = (yaml.safe_load(file.read_text(encoding="utf-8"))["parameters"] for file in files)
    return {parameter["experiment"]["value"] for parameter in parameters}


@pytest.mark.parametrize("variables", [{}, {"WANDB_MODE": "offline"}])
def test_without_an_account_it_says_what_to_do(tmp_path: Path, variables: dict[str, str]) -> None:
    code, out, said = command(tmp_path, **variables)
    (line,) = [line for line in said.splitlines() if not line.startswith("wandb:")]
    assert (code, out) == (2, "")
    assert line.startswith("error: W&B: nobody is logged in; `wandb login`")
    assert "tensorboard --logdir runs" in line


def test_a_key_that_has_expired_is_refused(tmp_path: Path) -> None:
    with WandbServer() as server:
        given = server.environment() | {"WANDB_API_KEY": "f" * 40}
        code, _, said = command(tmp_path, **given)
        assert code == 2
        assert "error: W&B: " in said
        assert "user is not logged in" in said
        assert "Traceback" not in said
        assert not server.views


def test_what_is_drawn_and_grouped_by_is_what_runs_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name in a panel or a column of accuracy tasks is a setting or a result of a run."""
    measure_quickly(monkeypatch)
    record = train_here(tiny(tmp_path, "logger.tensorboard=true"))
    settings = loggers.hyperparameters(compose(tiny(tmp_path)).config)
    assert set(dashboards.GROUPING) <= settings.keys()
    assert settings["label"] == record.label
    assert settings["task"] == record.task
    columns = {
        column.removeprefix("config:").removesuffix(".value")
        for column in dashboards.COLUMNS
        if column.startswith("config:")
    }
    assert columns <= settings.keys()

    hparams, metrics = hparams_of(run_directory(tmp_path) / "tensorboard")
    assert hparams["label"] == record.label
    assert hparams["depth"] == record.depth
    assert hparams["training.learning_rate"] == record.config["training"]["learning_rate"]
    assert not [name for name in hparams if name.startswith("scale.")]
    assert metrics["test/accuracy"] == pytest.approx(record.test["accuracy"])
    assert metrics["best/accuracy"] == pytest.approx(record.best["accuracy"])
    assert metrics["parameters"] == record.parameters
    assert "samples_to_threshold" not in metrics  # since this run did not reach it


def hparams_of(directory: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Settings and metrics as TensorBoard's HPARAMS tab reads them from a run's event files."""
    hparams: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    for file in directory.glob("events.*"):
        events = EventAccumulator(str(file)).Reload()
        plugin = events.PluginTagToContent("hparams") if "hparams" in plugins(events) else {}
        for tag, content in plugin.items():
            data = plugin_data_pb2.HParamsPluginData.FromString(content)
            if tag.endswith("session_start_info"):
                for name, value in data.session_start_info.hparams.items():
                    hparams[name] = getattr(value, value.WhichOneof("kind"))
            elif tag.endswith("experiment"):
                names = [info.name.tag for info in data.experiment.metric_infos]
                scalars = (events.Scalars(name)[-1].value for name in names)
                metrics |= dict(zip(names, scalars, strict=True))
    return hparams, metrics


def plugins(events: EventAccumulator) -> set[str]:
    return {events.summary_metadata[tag].plugin_data.plugin_name for tag in events.summary_metadata}


def test_a_run_that_is_not_uploaded_in_time_says_how_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And goes on, unless W&B was asked to be online (tests/test_wandb.py)."""

    def too_slow() -> None:
        raise TimeoutError

    monkeypatch.setattr(wandb, "finish", too_slow)
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "3")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    loggers._finish_wandb(tmp_path)
    said = capsys.readouterr().err
    assert said.startswith("warning: W&B has not taken")
    assert f"`wandb sync --include-online {tmp_path}`" in said
