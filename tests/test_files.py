"""Files and folders that are whole or not there, and one process at a time, also when killed."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from sparsedet.errors import InputError
from sparsedet.files import locked, new_folder, replacing

FORK = multiprocessing.get_context("fork")


def _hold(context, path, ready, hold):
    with context(path) as folder:
        Path(folder or path, "half").write_text("half")
        ready.set()
        hold.wait(60)


@pytest.fixture
def holder(tmp_path):
    """Start a process that is within a context manager of a path; ``end()`` lets it finish."""
    started = []

    def start(context, path):
        ready, hold = FORK.Event(), FORK.Event()
        process = FORK.Process(target=_hold, args=(context, str(path), ready, hold))
        process.start()
        started.append(process)
        assert ready.wait(60)
        process.end = hold.set
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def _kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "file"
    for text in ("old", "new"):
        with replacing(str(path)) as temporary:
            Path(temporary).write_text(text)
    with pytest.raises(KeyError), replacing(str(path)) as temporary:
        Path(temporary).write_text("half")
        raise KeyError
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file"]


def test_a_folder_is_one_runs_until_its_process_ends(tmp_path, holder):
    first = holder(locked, tmp_path)
    with pytest.raises(InputError, match=f"another run is at work in it .process {first.pid}."):
        with locked(str(tmp_path)):
            pass
    _kill(first)
    with locked(str(tmp_path)):
        assert (tmp_path / "half").exists()


def test_a_lock_is_not_inherited(tmp_path, holder):
    """As by the workers that read images, which may outlive a killed run by seconds."""
    with locked(str(tmp_path)):
        child = holder(new_folder, tmp_path / "other")
    with locked(str(tmp_path)):
        assert child.is_alive()


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    path = str(tmp_path / "new")
    with pytest.raises(KeyError), new_folder(path) as temporary:
        Path(temporary, "file").write_text("half")
        raise KeyError
    assert os.listdir(tmp_path) == []
    with new_folder(path) as temporary:
        Path(temporary, "file").write_text("whole")
    assert os.listdir(tmp_path) == ["new"] and os.listdir(path) == ["file"]
    with pytest.raises(InputError, match="exists already"), new_folder(path):
        pass
    assert os.listdir(tmp_path) == ["new"] and os.listdir(path) == ["file"]


def test_the_loser_of_two_leaves_the_winners_folder_alone(tmp_path, holder):
    path = tmp_path / "new"
    winner = holder(new_folder, path)
    with pytest.raises(InputError, match="new: another run is at work"), new_folder(str(path)):
        pass
    winner.end()
    winner.join()
    assert os.listdir(tmp_path) == ["new"] and os.listdir(path) == ["half"]


def test_what_a_killed_process_left_is_cleared(tmp_path, holder):
    path = tmp_path / "new"
    _kill(holder(new_folder, path))
    assert not path.exists()
    with new_folder(str(path)) as temporary:
        Path(temporary, "file").write_text("whole")
    assert os.listdir(tmp_path) == ["new"] and os.listdir(path) == ["file"]
