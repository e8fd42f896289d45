"""Commands that are killed at random moments leave nothing half-written, and can be run again."""

import os
import random
import time

import cv2
import pytest
import torch

KILLS = int(os.environ.get("SPARSEDET_KILLS", 3))
TRAIN = ("train_net.py", "--config-file")


@pytest.fixture
def photos(tmp_path, picture):
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        cv2.imwrite(str(tmp_path / "photos" / f"{seed}.png"), picture(96, 128, seed))
    return tmp_path / "photos"


AMP = ("SOLVER.AMP.ENABLED", "True")


@pytest.mark.parametrize(
    "arguments, opts",
    [
        ((), ()),
        pytest.param((), AMP, marks=pytest.mark.thorough),
        pytest.param(("--num-gpus", 2), (), marks=pytest.mark.thorough),
        pytest.param(("--num-gpus", 2), AMP, marks=pytest.mark.thorough),
        pytest.param(("--num-gpus", 3), ("SOLVER.IMS_PER_BATCH", 3), marks=pytest.mark.thorough),
    ],
    ids=["one", "one-bfloat16", "two", "two-bfloat16", "three"],
)
def test_a_training_that_is_killed_and_resumed(start, config, tmp_path, arguments, opts):
    """It ends with the same weights, bit for bit; workers come and go meanwhile."""
    moments = random.Random(0)
    opts = (*opts, "SOLVER.MAX_ITER", 8 + 2 * KILLS, "TEST.EVAL_PERIOD", 4, "OUTPUT_DIR")
    assert start(*TRAIN, config, *arguments, *opts, tmp_path / "whole").wait() == 0
    out, log = tmp_path / "out", tmp_path / "out" / "log.txt"
    for turn in range(KILLS):
        log.unlink(missing_ok=True)
        workers = ("DATALOADER.NUM_WORKERS", 2 * (turn % 2))
        command = start(*TRAIN, config, "--resume", *arguments, *opts, out, *workers)
        command.wait_for(log)  # so that the kill comes to what writes
        while command.process.is_alive() and "Starting training" not in log.read_text():
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1))
        command.kill()
        if (out / "last_checkpoint").exists():
            last = torch.load(out / (out / "last_checkpoint").read_text(), weights_only=True)
            assert {"model", "trainer"} <= last.keys()
    command = start(*TRAIN, config, "--resume", *arguments, *opts, out)
    assert command.wait() == 0, command.errors.read_text()
    whole, resumed = (
        torch.load(folder / "model_final.pth", weights_only=True)["model"]
        for folder in (tmp_path / "whole", out)
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert not list(out.glob("*.tmp"))


def kill_at_random(start, command, busy, result):
    """Run a command whole, kill it at random moments, and run it whole again.

    Args:
        busy: what is there while the command writes.
        result: what it writes; it is removed before each run.

    Returns:
        what was at ``result`` after each run.
    """

    def run_whole():
        running = start(*command)
        running.wait_for(busy)
        begun = time.monotonic()
        assert running.wait() == 0, running.errors.read_text()
        assert not busy.exists()
        return time.monotonic() - begun

    moments, seconds, found = random.Random(0), run_whole(), [take(result)]
    for _ in range(KILLS):
        running = start(*command)
        running.wait_for(busy)
        time.sleep(moments.uniform(0, seconds))
        running.kill()
        found.append(take(result))
    run_whole()
    return [*found, take(result)]


def take(path):
    """The names in a folder, or those of a file and the one beside, which are then gone."""
    beside = (path, path.with_suffix(".bin"))
    found = list(path.iterdir()) if path.is_dir() else [part for part in beside if part.exists()]
    names = sorted(part.name for part in found)
    for part in found:
        part.unlink()
    if path.is_dir():
        path.rmdir()
    return names


def test_a_compression_that_is_killed(start, kitchen, photos, tmp_path):
    output = tmp_path / "compact"
    command = ["compress.py", "--config-file", kitchen / "config.yaml", "--images", photos]
    command += ["--target-params", "2x", "--output", output]
    whole, *killed, again = kill_at_random(start, command, tmp_path / "compact.tmp", output)
    assert {"config.yaml", "model.pth", "plan.yaml", "report.md"} <= set(whole)
    assert again == whole and all(left in ([], whole) for left in killed)


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_an_export_that_is_killed(start, kitchen, tmp_path, name):
    output, busy = tmp_path / name, tmp_path / f".export-{name.replace('.', '-')}"
    command = ["export_model.py", "--config-file", kitchen / "config.yaml", "--output", output]
    whole, *killed, again = kill_at_random(start, command, busy, output)
    files = {"model.onnx": ["model.onnx"], "model.xml": ["model.bin", "model.xml"]}[name]
    assert whole == again == files
    # Without the .xml, which comes last, the .bin is nothing that could be used.
    assert all(left in ([], files[:-1], files) for left in killed)


def test_two_trainings_in_one_folder(start, config, tmp_path):
    out = tmp_path / "out"
    first = start(*TRAIN, config, "OUTPUT_DIR", out)
    first.wait_for(out / "model_0000001.pth")
    before = (out / "config.yaml").read_bytes()
    second = start(*TRAIN, config, "OUTPUT_DIR", out, "SEED", 5)
    assert second.wait() == 1
    (line,) = second.error_lines()
    assert f"{out}: another run is at work in it (process {first.pid})" in line
    assert first.process.is_alive() and (out / "config.yaml").read_bytes() == before


def test_two_compressions_into_one_folder(start, kitchen, photos, tmp_path):
    output = tmp_path / "compact"
    command = ["compress.py", "--config-file", kitchen / "config.yaml", "--images", photos]
    command += ["--target-params", "2x", "--output", output]
    both = [start(*command) for _ in range(2)]
    assert sorted(one.wait() for one in both) == [0, 1]
    assert {"config.yaml", "model.pth", "plan.yaml", "report.md"} <= set(os.listdir(output))
    assert not (tmp_path / "compact.tmp").exists()
