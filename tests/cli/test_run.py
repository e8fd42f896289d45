"""How errors end a command: what is the user's in one line, and the rest kept for us."""

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsedet.cli.reasons import MEMORY, reason
from sparsedet.cli.run import LOG, run
from sparsedet.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ends(capsys, monkeypatch, tmp_path):
    """What a command that raises an error prints, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def ends(error):
        def main():
            raise error

        with pytest.raises(SystemExit) as end:
            run(main)
        assert end.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return ends


@pytest.mark.parametrize(
    "error, line",
    [
        (InputError("a.yaml: one\n line"), "a.yaml: one line"),
        (
            FloatingPointError("Loss became infinite or NaN at iteration=7!\nloss_dict = {}"),
            "training diverged: at iteration 7 the loss is not a finite number; "
            "lower SOLVER.BASE_LR, or raise SOLVER.WARMUP_ITERS",
        ),
        (
            AssertionError("No valid data found in a_train,b_train."),
            "DATASETS.TRAIN: no image of a_train,b_train has an annotation to train on",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "a.pth"),
         "a.pth: No space left on device; free some"),
        (PermissionError(errno.EACCES, "Permission denied", "a", None, "b"),
         "a to b: Permission denied"),
        (MemoryError(), MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), MEMORY),
    ],
)  # fmt: skip
def test_what_others_raise_is_told_in_one_line(ends, error, line):
    assert ends(error) == f"error: {line}"
    assert not os.path.exists(LOG)


def _diverge(rank):
    raise FloatingPointError(f"Loss became infinite or NaN at iteration={rank + 3}!\nloss = nan")


class _Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise InputError("a.jpg: truncated")


def test_also_from_a_process_and_from_a_data_loader(ends):
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as caught:
        torch.multiprocessing.start_processes(_diverge, nprocs=1, start_method="fork")
    assert "at iteration 3 the loss is not" in ends(caught.value)

    context = multiprocessing.get_context("fork")
    loader = torch.utils.data.DataLoader(_Broken(), num_workers=1, multiprocessing_context=context)
    with pytest.raises(InputError) as caught:
        next(iter(loader))
    assert ends(caught.value) == "error: a.jpg: truncated"


def test_what_nobody_expected_keeps_its_traceback_in_a_file(ends, tmp_path):
    assert reason(ZeroDivisionError("division by zero")) is None
    for _ in range(2):  # the second is added to the first
        assert ends(ZeroDivisionError("division by zero")) == (
            "error: unexpected ZeroDivisionError: division by zero; the traceback is in "
            f"{tmp_path / LOG}"
        )
    kept = (tmp_path / LOG).read_text()
    assert kept.count("Traceback (most recent call last)") == 2
    assert "raise error" in kept and "sparsedet 0" in kept


def test_where_the_folder_cannot_be_written_the_file_is_elsewhere(ends, tmp_path, monkeypatch):
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    (tmp_path / LOG).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    assert ends(KeyError("x")).endswith(f"the traceback is in {elsewhere / LOG}")


def sparsedet(*arguments, output, folder, **environment):
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-c", "from sparsedet.cli.main import main; main()", *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=folder, stdout=output, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_output_that_cannot_be_written(tmp_path):
    with open("/dev/full", "w") as full:
        ended = sparsedet("data", "shapes", "--output", "shapes", "--num-train", "1",
                          "--num-test", "1", output=full, folder=tmp_path)  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: No space left on device; free some"
    assert "Traceback" not in ended.stderr


def test_opencv_that_lacks_the_libraries_of_windows(tmp_path):
    package = tmp_path / "cv2"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = sparsedet("predict", output=subprocess.DEVNULL, folder=tmp_path, PYTHONPATH=path)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "libGL.so.1" in ended.stderr and "opencv-python-headless" in ended.stderr
