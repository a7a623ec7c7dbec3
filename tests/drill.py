"""A drill: kill a sweep at random moments, and compare it with one that nobody disturbs.

python tests/drill.py [--kills 12] [--seed 0]; not a part of `make test`, since it takes minutes.
Of six kills each signal falls once anywhere and once soon after a run's record. It ends with exit
code 0 where no process was left behind and every run ends with the same bits.
"""

import argparse
import itertools
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from commands import TINY, assert_same_weights, heed_interruptions, processes_in, result, wait_until
from tlstm.records.schema import read_record

PARAMETERS = {
    "experiment": {"value": "depth"},
    "model": {"values": ["slstm", "tlstm_3d_cn"]},
    "seed": {"values": [0, 1]},
}
SETTINGS = [*TINY, "training.max_samples=3000", "training.samples_per_epoch=150"]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130, -2}}
SOON_SECONDS = 2.0  # after a record
ENDING_SECONDS = 60  # for the processes of a killed sweep


def start(directory: Path) -> subprocess.Popen[str]:
    """Start the sweep in a directory of its own."""
    directory.mkdir(exist_ok=True)
    content = {"program": "tlstm.train", "method": "grid", "parameters": PARAMETERS, "command": []}
    (directory / "sweep.yaml").write_text(yaml.safe_dump(content))
    with (directory / "output.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tlstm.sweep", "sweep.yaml", *SETTINGS],
            cwd=directory,
            stdout=log,
            stderr=log,
            preexec_fn=heed_interruptions,
            text=True,
        )


def ways(chance: random.Random) -> Iterator[tuple[signal.Signals, bool]]:
    """Yield signals, and whether to send them after a further record: each way once in six."""
    while True:
        every = list(itertools.product(SIGNALS, (False, True)))
        yield from chance.sample(every, len(every))


def recorded(directory: Path) -> int:
    """Return the number of finished runs."""
    return len(list(directory.glob("runs/*/*/record.json")))


def kill(
    directory: Path, way: tuple[signal.Signals, bool], chance: random.Random, longest: float
) -> bool:
    """Start the sweep and kill it; return False where it had ended before."""
    sent, after_record = way
    known, process, started = recorded(directory), start(directory), time.monotonic()
    while after_record and process.poll() is None and recorded(directory) == known:
        time.sleep(0.01)
    try:
        moment = chance.uniform(0, SOON_SECONDS if after_record else longest)
        assert process.wait(moment) == 0, (directory / "output.log").read_text()
    except subprocess.TimeoutExpired:
        process.send_signal(sent)
        code = process.wait(ENDING_SECONDS)
        assert code in CODES[sent], f"{sent.name}: exit code {code}"
    else:
        return False
    left = f"{sent.name}: processes are left behind"
    wait_until(lambda: not processes_in(directory), left, ENDING_SECONDS)
    moment = time.monotonic() - started
    print(f"{sent.name} after {moment:.1f} s: {recorded(directory)} runs recorded", flush=True)
    return True


def compare(killed: Path, whole: Path) -> int:
    """Make sure that the runs of two sweeps are the same; return their number."""
    expected = sorted(whole.glob("runs/*/*/record.json"))
    for path in expected:
        other = killed / path.relative_to(whole)
        assert result(read_record(other)) == result(read_record(path)), other
        assert_same_weights(other.parent, path.parent)
    assert len(list(killed.glob("runs/*/*"))) == len(expected)
    assert "Traceback" not in (killed / "output.log").read_text()
    return len(expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as directory:
        whole, killed = Path(directory).resolve() / "whole", Path(directory).resolve() / "killed"
        started = time.monotonic()
        assert start(whole).wait() == 0, (whole / "output.log").read_text()
        longest = time.monotonic() - started
        print(f"undisturbed: {longest:.0f} s", flush=True)
        for way in itertools.islice(ways(chance), options.kills):
            while not kill(killed, way, chance, longest):
                print(f"{compare(killed, whole)} runs, the same bits; from the start", flush=True)
                shutil.rmtree(killed)
        assert start(killed).wait() == 0, (killed / "output.log").read_text()
        print(f"{compare(killed, whole)} runs, the same bits after {options.kills} kills")


if __name__ == "__main__":
    main()
