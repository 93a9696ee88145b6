"""Directories of the side channel: a server takes its own with it, and those of killed ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from toploc_proxy.channel.addresses import LOCK, PREFIX, channel_directory, sweep

HOLD = """
import sys
from pathlib import Path
from toploc_proxy.channel import addresses
addresses.PLACE = Path(sys.argv[1])
with addresses.channel_directory() as directory:
    print(directory, flush=True)
    sys.stdin.read()
"""


def hold(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a directory there."""
    command = [sys.executable, "-c", HOLD, str(place)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_killed_servers_directory_is_removed_by_the_next(tmp_path: Path) -> None:
    process, directory = hold(tmp_path)
    with process:
        assert (directory / LOCK).exists()
        process.kill()
    sweep(tmp_path)
    assert not directory.exists()


def test_a_running_servers_directory_stays(tmp_path: Path) -> None:
    process, directory = hold(tmp_path)
    with process:
        sweep(tmp_path)
        assert directory.exists()
        process.communicate("")
    assert not directory.exists()


def test_what_is_no_servers_stays(tmp_path: Path) -> None:
    other = tmp_path / f"{PREFIX}data"
    other.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(other)
    (tmp_path / f"{PREFIX}file").write_text("")
    sweep(tmp_path)
    assert len([*tmp_path.iterdir()]) == 3


def test_a_directory_is_found_while_it_is_used() -> None:
    with channel_directory() as directory:
        sweep(Path(directory).parent)
        assert Path(directory, LOCK).exists()
