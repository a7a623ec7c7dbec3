"""W&B's own commands with this project's sweep files, against a server on the loopback.

What counts is what the server has seen of every run, not the exit codes of the agents.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import TINY, record_of
from tlstm.records.schema import Record, read_record
from wandb_backend import ENTITY, Run
from wandb_server import WandbServer

ROOT = Path(__file__).parents[1]
PATIENCE = 300.0  # seconds until a test gives up waiting
LONG = 9_000  # samples of a run that can be met while it trains: some seconds

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wandb")]


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server


def environment(server: WandbServer, **more: str) -> dict[str, str]:
    """Return variables with this server, this Python, and nothing of the user's own W&B."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    return own | server.environment() | {"PATH": path} | more


def settings(output_dir: Path, **more: Any) -> dict[str, Any]:
    """Return the settings of a tiny run."""
    tiny = (setting.split("=") for setting in TINY if not setting.startswith("logger"))
    values = {key: yaml.safe_load(value) for key, value in tiny}
    return values | {"output_dir": str(output_dir)} | more


def small_sweep(directory: Path, depths: Sequence[int], **more: Any) -> Path:
    """The shipped sweep of depths, with one model, fewer depths and tiny runs."""
    sweep = yaml.safe_load((ROOT / "sweeps" / "depth.yaml").read_text(encoding="utf-8"))
    del sweep["parameters"]["task"]
    fixed = {key: {"value": value} for key, value in settings(directory / "runs", **more).items()}
    grid = {"model": {"values": ["slstm"]}, "model.depth": {"values": list(depths)}}
    sweep["parameters"] |= fixed | grid
    file = directory / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    return file


def start(command: Sequence[str], directory: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=directory, env=env, text=True, **pipes)


def done(command: Sequence[str], directory: Path, env: dict[str, str]) -> tuple[int, str, str]:
    process = start(command, directory, env)
    out, error = process.communicate(timeout=PATIENCE)
    return process.returncode, out, error


def start_sweep(server: WandbServer, file: Path) -> str:
    """`wandb sweep` of a file: what `wandb agent` is to be called with, as it says."""
    code, _, said = done(["wandb", "sweep", str(file)], file.parent, environment(server))
    assert code == 0, said
    (name,) = server.sweeps
    path = f"{ENTITY}/tlstm/{name}"
    assert f"wandb agent {path}" in said
    return path


def start_agent(
    server: WandbServer, sweep: str, directory: Path, *options: str, **more: str
) -> subprocess.Popen[str]:
    env = environment(server, **more)
    return start(["wandb", "agent", *options, sweep], directory, env)


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it has taken too long"
        time.sleep(0.05)


def train(server: WandbServer, output_dir: Path, **more: str) -> tuple[int, str, str]:
    """One run of the training command, with these variables."""
    given = [f"{key}={value}" for key, value in settings(output_dir, model="slstm").items()]
    command = [sys.executable, "-m", "tlstm.train", *given]
    env = environment(server, **more)
    return done(command, output_dir.parent, {k: v for k, v in env.items() if v != ""})


def assert_server_has(run: Run, record: Record) -> None:
    """State, history, summary and configuration of a run are those of its record."""
    assert (run.state, run.exit_code) == ("finished", 0)
    assert run.group == record.experiment
    keys = ("samples", "validation/accuracy", "validation/loss")
    rows = [tuple(row[key] for key in keys) for row in run.history if keys[1] in row]
    points = [(point.samples, point.accuracy, point.loss) for point in record.curve]
    assert rows == [pytest.approx(point) for point in points]
    assert run.summary["samples"] == record.samples
    assert run.summary["test/accuracy"] == pytest.approx(record.test["accuracy"])
    assert run.summary["best/accuracy"] == pytest.approx(record.best["accuracy"])
    assert run.summary["parameters"] == record.parameters
    assert run.summary["milliseconds_per_timestep"] == record.milliseconds_per_timestep
    for name in ("model", "label", "depth", "channels", "seed"):
        assert run.config[name] == getattr(record, name)
    assert run.config["task"] == record.task
    assert run.config["model.depth"] == record.config["model"]["depth"]
    assert run.config["training.max_samples"] == record.config["training"]["max_samples"]


def records_by_name(directory: Path) -> dict[str, Record]:
    """The records of all runs below a directory, by the names of their W&B runs."""
    files = (directory / "runs").glob("*/*/record.json")
    return {
        file.parent.joinpath("wandb_run_id").read_text().strip(): read_record(file)
        for file in files
    }


def test_two_agents_run_every_point_of_a_sweep_once(server: WandbServer, tmp_path: Path) -> None:
    sweep = start_sweep(server, small_sweep(tmp_path, [1, 2, 3]))
    agents = [start_agent(server, sweep, tmp_path) for _ in range(2)]
    for agent in agents:
        agent.communicate(timeout=PATIENCE)
    assert sorted(run.config["model.depth"] for run in server.runs.values()) == [1, 2, 3]
    assert all(server.agents.values())
    records = records_by_name(tmp_path)
    assert records.keys() == server.runs.keys()
    for name, run in server.runs.items():
        assert f"{ENTITY}/tlstm/{run.sweep}" == sweep
        assert_server_has(run, records[name])


def test_agents_that_are_killed_are_replaced(server: WandbServer, tmp_path: Path) -> None:
    """A run outlives its agent; told to end, it is handed out again and goes on where it was."""
    more = {"training.max_samples": LONG}
    sweep = start_sweep(server, small_sweep(tmp_path, [1, 2], **more))
    killed = start_agent(server, sweep, tmp_path)
    wait_until(lambda: [run for run in server.runs.values() if run.state == "running"])
    killed.kill()
    (first,) = server.runs
    assert server.runs[first].state == "running"

    ended = start_agent(server, sweep, tmp_path, "--forward-signals")
    wait_until(lambda: len(server.runs) == 2)
    (second,) = server.runs.keys() - {first}
    wait_until(lambda: list(tmp_path.glob("runs/*/*L2*/checkpoints/last.ckpt")))
    ended.send_signal(signal.SIGTERM)
    wait_until(lambda: server.runs[second].state == "preempted")
    ended.communicate(timeout=PATIENCE)
    before = len(server.runs[second].history)
    assert not list(tmp_path.glob("runs/*/*L2*/record.json"))

    start_agent(server, sweep, tmp_path).communicate(timeout=PATIENCE)
    killed.communicate(timeout=PATIENCE)  # when its run, which has its pipes, has ended
    assert list(server.agents.values()) == [[first], [second], [second]]
    for name, record in records_by_name(tmp_path).items():
        assert server.runs[name].state == "finished"
        assert record.samples == server.runs[name].summary["samples"] == LONG
    assert len(server.runs[second].history) > before
    samples = [row["samples"] for row in server.runs[second].history]
    assert samples.count(30) == 1, "it has started again"


def test_a_run_that_wandb_stops_stays_stopped(server: WandbServer, tmp_path: Path) -> None:
    """Its agent sends SIGTERM, as a scheduler does to a run that shall go on elsewhere."""
    more = {"training.max_samples": 100 * LONG}
    agent = start_agent(server, start_sweep(server, small_sweep(tmp_path, [1], **more)), tmp_path)
    wait_until(lambda: list(tmp_path.glob("runs/*/*L1*/checkpoints/last.ckpt")))
    (run,) = server.runs.values()
    run.stopped = True
    agent.communicate(timeout=PATIENCE)
    assert list(server.agents.values()) == [[run.name]]
    assert (run.state, run.preempting) == ("failed", False)
    assert not list(tmp_path.glob("runs/*/*L1*/record.json"))


def test_an_agent_that_is_offline_needs_the_server_and_its_runs_do_not(
    server: WandbServer, tmp_path: Path
) -> None:
    """The points come from the server; what becomes of them reaches it with `wandb sync`."""
    sweep = start_sweep(server, small_sweep(tmp_path, [1]))
    start_agent(server, sweep, tmp_path, WANDB_MODE="offline").communicate(timeout=PATIENCE)
    (run,) = server.runs.values()
    assert (run.state, run.history) == ("pending", [])
    record = record_of(tmp_path / "runs")
    (kept,) = tmp_path.glob("runs/*/*/wandb/offline-run-*")
    code, _, said = done(["wandb", "sync", str(kept)], tmp_path, environment(server))
    assert code == 0, said
    assert_server_has(run, record)
    assert f"{ENTITY}/tlstm/{run.sweep}" == sweep


@pytest.mark.parametrize("mode", ["", "online"])
def test_an_expired_key(server: WandbServer, tmp_path: Path, mode: str) -> None:
    """Asked to be online a run is refused; merely logged in it is kept offline, and says so."""
    output_dir = tmp_path / "runs"
    code, _, said = train(server, output_dir, WANDB_API_KEY="f" * 40, WANDB_MODE=mode)
    (line,) = said.splitlines()
    assert "user is not logged in" in line
    if mode == "online":
        assert code == 2
        assert line.startswith("error: W&B: ")
        assert "WANDB_MODE=offline" in line
        assert not list(output_dir.glob("*/*/record.json"))
    else:
        assert code == 0
        assert line.startswith("warning: W&B: ")
        assert record_of(output_dir).samples == 90
        (kept,) = output_dir.glob("*/*/wandb/offline-run-*")
        assert f"wandb sync {kept.parent}/offline-run-*" in line


def test_a_server_out_of_order_when_a_run_begins(server: WandbServer, tmp_path: Path) -> None:
    server.status = 500
    code, _, said = train(server, tmp_path / "runs", WANDB_MODE="", WANDB_INIT_TIMEOUT="5")
    (line,) = said.splitlines()
    assert code == 0
    assert line.startswith("warning: W&B: ")
    assert server.url in line
    assert record_of(tmp_path / "runs").samples == 90
    assert not server.runs


def test_a_server_out_of_order_while_a_run_trains(server: WandbServer, tmp_path: Path) -> None:
    """The run ends with its record; `wandb sync` brings the server what it has missed."""
    server.fails_after = "UpsertBucket"
    code, _, said = train(server, tmp_path / "runs", WANDB_FINISH_TIMEOUT="3")
    (line,) = said.splitlines()
    (kept,) = tmp_path.glob("runs/*/*/wandb/run-*")
    assert line.startswith("error: W&B has not taken")
    assert f"`wandb sync --include-online {kept}`" in line
    assert code == 2
    record = record_of(tmp_path / "runs")
    assert len(list(tmp_path.glob("runs/*/*/csv/*/metrics.csv"))) == 1
    (run,) = server.runs.values()
    assert (run.state, run.history) == ("running", [])

    server.status = server.fails_after = None
    code, _, said = done(
        ["wandb", "sync", "--include-online", str(kept)], tmp_path, environment(server)
    )
    assert code == 0, said
    assert_server_has(run, record)
