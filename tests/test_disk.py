"""A disk that is really full: the run says so, nothing is lost, and it goes on with room."""

import subprocess
import sys
from pathlib import Path

import pytest

SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=4m tmpfs "$0"'


def on_a_small_disk(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command with a disk of 4 MB in the place of a directory, for it alone."""
    return subprocess.run(
        [*SMALL_DISK, f'{MOUNT} && exec "$@"', str(directory), *command],
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_run_whose_disk_fills_up_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Before its configuration, its checkpoints, its logs and its record."""
    try:
        possible = on_a_small_disk(tmp_path, "true").returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("disks cannot be mounted here")
    script = Path(__file__).with_name("full_disk.py")
    done = on_a_small_disk(tmp_path, sys.executable, str(script), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("6 moments\n")
    assert list(tmp_path.iterdir()) == []
