"""Runs on a disk that fills up on the way; in a process of its own, whose disk is a small one.

python full_disk.py DISK, which has no file: it is filled, and emptied again, at several moments.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from commands import assert_same_weights, measure_quickly, record_of, result, run_directory, tiny
from tlstm.train import run_command
from tlstm.training import recording, run
from tlstm.training.checkpoints import KeepCheckpoints
from tlstm.training.module import SequenceModule

# Before which call of which function, and the file that then cannot be written
MOMENTS: list[tuple[Any, str, int, str, list[str]]] = [
    (run, "make_loggers", 1, "config.yaml", ["logger=csv"]),
    (KeepCheckpoints, "on_train_epoch_end", 1, "best.ckpt", ["logger=csv"]),
    (KeepCheckpoints, "on_train_epoch_end", 2, "last.ckpt", ["logger=csv"]),
    (SequenceModule, "on_validation_epoch_end", 1, "", ["logger=csv"]),
    (recording, "write_record", 1, "record.json", ["logger=csv"]),
    (recording, "test", 1, "", ["logger.tensorboard=true"]),
]


@contextmanager
def filled(ballast: Path, place: Any, name: str, call: int) -> Iterator[None]:
    """A disk that is full from the n-th call of a function on."""
    function, count = getattr(place, name), 0

    def filling(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            fill(ballast)
        return function(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, filling)
        yield
    ballast.unlink()


def fill(ballast: Path) -> None:
    """Leave no byte free."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(256))


def refusal(command: Callable[[], None]) -> str:
    """The sentence that a run ends with, after exit code 2."""
    said = StringIO()
    with redirect_stderr(said), pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 2
    return said.getvalue().splitlines()[-1]


def main(disk: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        whole = disk / "whole"
        run_command(tiny(whole))
        for number, (place, name, call, file, settings) in enumerate(MOMENTS):
            overrides = tiny(disk / str(number), *settings)
            with filled(disk / "ballast", place, name, call):
                said = refusal(lambda overrides=overrides: run_command(overrides))
            directory = run_directory(disk / str(number))
            assert said.startswith(f"error: {directory}"), said
            assert file in said, said
            assert said.endswith("No space left on device"), said
            assert not (directory / "record.json").exists()
            run_command(overrides)
            expected = result(record_of(whole)) | {"config": None}
            assert result(record_of(disk / str(number))) | {"config": None} == expected
            assert_same_weights(directory, run_directory(whole))
    print(f"{len(MOMENTS)} moments")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
