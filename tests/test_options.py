"""Every option of every command with hostile values: a sentence or a result, and no traceback."""

import importlib
import os
import shutil
from argparse import Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from commands import files_below, measure_quickly, run_directory, train_here
from test_commands import COMMANDS
from texts_for_tests import TINY, write_text
from tlstm import dashboards, results
from tlstm.bench import session
from tlstm.sweeping import planning
from tlstm.utils import CommandParser, run_main

HOSTILE = (
    *("", " ", "-1", "0", "1", "0.5", "nan", "inf", "1e400", "9" * 40, "9" * 5000, "true", "None"),
    *(
        "null",
        "[]",
        "{}",
        "${seed}",
        "a b",
        "a,b",
        "é日",
        "'",
        '"x',
        "a\0b",
        "a\nb",
        "~",
        "~nobody/x",
    ),
    *("a=b", "-", "--", "x" * 300, "\udcff", "<b>[x]$", "\x1b[31m", "*", "[", "cuda:99", "meta"),
    *(".", "..", "/", "/dev/null", "/dev/zero", "nowhere/below", "file", "file/below", "loop"),
    *("pipe", "folder", "latin"),
)


SWEEP = Path(__file__).parents[1] / "sweeps" / "depth.yaml"
SHORT = ("--prompt=the", "--characters=2", "--device=cpu")


class Option(NamedTuple):
    """An option or a positional argument of a command, with the arguments that it needs before."""

    module: str
    before: tuple[str, ...]
    name: str

    def __str__(self) -> str:
        return " ".join((self.module, *self.before, self.name))


class _ParserError(Exception):
    """Carries a command's parser out of it."""


def parser_of(module: str) -> ArgumentParser:
    def found(self: ArgumentParser, *_: Any) -> None:
        raise _ParserError(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandParser, "parse_args", found)
        patch.setattr(CommandParser, "parse_intermixed_args", found)
        with pytest.raises(_ParserError) as caught:
            importlib.import_module(module).main([])
    parser = caught.value.args[0]
    assert isinstance(parser, ArgumentParser)
    return parser


def options_of(module: str, parser: ArgumentParser, *before: str) -> Iterator[Option]:
    actions: list[Action] = parser._actions
    for action in actions:
        if isinstance(action, _SubParsersAction):
            for name, below in action.choices.items():
                yield from options_of(module, below, name)
        elif "--help" not in action.option_strings:
            yield Option(module, before, (*action.option_strings, action.dest)[0])


MODULES = [
    "tlstm.bench.command" if path.stem == "__main__" else f"tlstm.{path.stem}" for path in COMMANDS
]
OPTIONS = [
    option
    for module in MODULES
    if module != "tlstm.train"  # its settings: see test_settings.py
    for option in options_of(module, parser_of(module))
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny model of a text."""
    place = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        train_here([*TINY, f"output_dir={place / 'runs'}", f"task.path={write_text(place, 4000)}"])
    copied = ["collect", "--runs", str(place / "runs"), "--results", str(place / "results")]
    assert results.main([*copied, "scratch"]) == 0
    shutil.copy(SWEEP.parents[1] / "results" / "published.csv", place / "results")
    return run_directory(place / "runs")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory to be in, with files of every kind; the home directory is beside it."""
    place = tmp_path / "here"
    (place / "folder").mkdir(parents=True)
    (place / "file").write_text("nothing of interest\n")
    (place / "latin").write_bytes(b"name: \xe9\n")
    (place / "loop").symlink_to("loop")
    os.mkfifo(place / "pipe")
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return place


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is long, or needs a network, is left out: the options have been read by then."""
    nothing = {
        session: {"multiplication_rate": 1e9, "_measure_all": None},
        planning: {"estimate_all": [None] * 100, "carry_out": 0},
        dashboards: {"default_entity": "me", "save_workspace": "", "save_report": ""},
    }
    for module, functions in nothing.items():
        for name, result in functions.items():
            monkeypatch.setattr(module, name, lambda *_, result=result: result)


def needed(option: Option, run: Path) -> list[str]:
    """Further arguments that a command takes beside one of its options."""
    store, name = str(run.parents[1] / "results"), option.name
    return {
        "tlstm.bench.command": ["--dry-run"],
        "tlstm.sweep": [str(SWEEP), "scale=smoke"] if name[0] == "-" else ["scale=smoke"],
        "tlstm.evaluate": [str(run)] if name[0] == "-" else [],
        "tlstm.export": [str(run)] if name != "run" else ["model.safetensors"],
        "tlstm.sample": [*([str(run)] if name[0] == "-" else []), *SHORT],
        "tlstm.memory_cells": [str(run)] if name in ("--data", "--results") else [],
        "tlstm.report": ["--results", store],
        "tlstm.figures": ["--results", store],
        "tlstm.results": ["--results", "own"] if option.before == ("copy",) else [],
    }.get(option.module, [])


def line_of(option: Option, value: str, run: Path) -> list[str]:
    """A command line that is right but for the value, which counts as the last one."""
    more = needed(option, run)
    if option.name.startswith("-"):
        return [*option.before, *more, f"{option.name}={value}"]
    if str(option) == "tlstm.export run":
        return [value, *more]
    return [*option.before, *more, value]


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_any_value_of_an_option_is_taken_or_refused_in_a_sentence(
    option: Option, run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = importlib.import_module(option.module)
    for value in HOSTILE:
        if value == "pipe" and option.name in ("file", "--output"):
            continue  # whoever writes to one waits for a reader
        before = files_below(place.parent)
        line = line_of(option, value, run)
        try:
            code = run_main(lambda line=line: command.main(line))
        except SystemExit as ended:
            code = ended.code
        out, said = capsys.readouterr()
        assert code in (0, 1, 2), line
        assert "\x1b" not in out + said, line
        if code == 2:
            lines = said.splitlines()
            assert lines, line
            assert all(each.startswith("error: ") for each in lines), line
            assert files_below(place.parent) == before, line
