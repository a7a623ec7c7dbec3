"""The way every command starts and ends, whatever the terminal and whoever interrupts it."""

import ast
import importlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from commands import heed_interruptions

SOURCE = Path(__file__).parents[1] / "src" / "tlstm"
COMMANDS = sorted(
    path
    for path in [*SOURCE.glob("*.py"), SOURCE / "bench" / "__main__.py"]
    if path.stem not in ("__init__", "utils")
)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_command_is_run_in_the_same_way(path: Path) -> None:
    last = ast.parse(path.read_text(encoding="utf-8")).body[-1]
    assert ast.unparse(last).splitlines()[-1].strip() == "sys.exit(run_main(main))"


def run(main: str, **options) -> subprocess.CompletedProcess[str]:
    """A command with these lines as its main function."""
    code = f"""
import os, signal, sys
sys.argv[0] = "-m"
import tlstm
from tlstm.utils import interruptions, leaving_at_once, run_main

def main():
{textwrap.indent(textwrap.dedent(main), "    ")}
sys.exit(run_main(main))
"""
    return subprocess.run(
        [sys.executable, "-c", code],
        text=True,
        preexec_fn=heed_interruptions,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
    )


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "error: interrupted\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
        (
            "with leaving_at_once(): os.kill(os.getpid(), signal.SIGINT)",
            130,
            "error: interrupted\n",
        ),
        (
            "with interruptions('go on'): os.kill(os.getpid(), signal.SIGINT)",
            130,
            "Interrupted; go on.\n",
        ),
        (
            "with interruptions('go on'): os.kill(os.getpid(), signal.SIGTERM)",
            143,
            "Ended; go on.\n",
        ),
        ("sys.exit(3)", 3, ""),
        ("return 1", 1, ""),
    ],
)
def test_an_interrupted_command_ends_with_a_sentence(main: str, code: int, said: str) -> None:
    done = run(main)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_a_command_whose_reader_has_gone_ends_in_silence() -> None:
    """As `tlstm.results collect | head` may."""
    reading, writing = os.pipe()
    os.close(reading)
    done = run("for number in range(100_000): print(number)", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "cp932", "latin-1"])
def test_a_sign_that_an_encoding_lacks_is_replaced(encoding: str) -> None:
    done = run(
        "print('5 µs × 2 – 日本 \\U0001f600')",
        encoding=encoding,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 ")
    assert "?" in done.stdout


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "active"}])
def test_waiting_threads_sleep_unless_told_otherwise(given: dict[str, str]) -> None:
    """Beside another process, spinning ones made a run ten times slower than one thread."""
    own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = run("print(os.environ['OMP_WAIT_POLICY'])", env=own | given)
    assert done.stdout == given.get("OMP_WAIT_POLICY", "passive") + "\n"


@pytest.mark.parametrize("module", ["tlstm.sweep", "tlstm.bench"])
def test_help_does_without_what_takes_seconds(module: str) -> None:
    code = f"""
import runpy, sys
sys.argv = ["", "--help"]
try:
    runpy.run_module("{module}", run_name="__main__")
except SystemExit as end:
    assert end.code == 0
assert not {{"torch", "lightning", "hydra", "pandas", "wandb"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout


@pytest.mark.parametrize(
    "module",
    ["sample", "evaluate", "export", "results", "figures", "report", "memory_cells", "models"],
)
def test_a_wrong_option_is_refused_in_a_sentence(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = importlib.import_module(f"tlstm.{module}")
    with pytest.raises(SystemExit) as ended:
        command.main(["--nowhere", "x", "y", "z"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("; --help lists the options")
