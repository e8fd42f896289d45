"""The processes of a training end together, within ten seconds and in one line."""

import os
import signal
import socket

import pytest
import torch

TRAIN = ("train_net.py", "--config-file")
TORCHRUN = ("torch.distributed.run", "--nproc_per_node", 2)


@pytest.fixture
def training(start, config, tmp_path):
    """Start a training of which nothing ends by itself, and wait until it trains."""

    def start_(*arguments, **options):
        command = start(*TRAIN, config, *arguments, "OUTPUT_DIR", tmp_path / "out", **options)
        command.wait_for(tmp_path / "out" / "model_0000001.pth")
        return command

    return start_


def test_a_killed_process_ends_all(training):
    command = training("--num-gpus", 2)
    os.kill(command.processes()[-1], signal.SIGKILL)
    assert command.all_end() == 1
    (line,) = command.error_lines()
    assert "terminated with signal SIGKILL" in line and "--resume" in line


def test_a_killed_parent_ends_all(training):
    """Also when interrupts are ignored, as under nohup and in the background of a script."""
    workers = ("DATALOADER.NUM_WORKERS", 1)
    command = training("--num-gpus", 2, *workers, ignore_interrupts=True)
    assert len(command.processes()) >= 5
    os.kill(command.pid, signal.SIGKILL)
    command.all_end()


@pytest.mark.thorough
def test_an_interrupt_of_the_parent_alone_ends_all(training):
    command = training("--num-gpus", 2)
    os.kill(command.pid, signal.SIGINT)
    assert command.all_end() == 130
    assert not command.error_lines()


@pytest.mark.thorough
def test_an_interrupt_of_one_process_with_workers(training):
    command = training("DATALOADER.NUM_WORKERS", 2)
    os.kill(command.pid, signal.SIGINT)
    assert command.all_end() == 130


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_a_killed_worker_ends_all(training, processes):
    command = training("--num-gpus", processes, "DATALOADER.NUM_WORKERS", 1)
    os.kill(command.processes()[-1], signal.SIGKILL)
    assert command.all_end() == 1
    (line,) = command.error_lines()
    assert "a process that reads images ended" in line and "DATALOADER.NUM_WORKERS" in line


@pytest.mark.thorough
def test_a_killed_torchrun_ends_all(training):
    command = training(launcher=TORCHRUN)
    os.kill(command.pid, signal.SIGKILL)
    command.all_end()


def test_a_port_that_is_taken(start, config):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        command = start(*TRAIN, config, "--num-gpus", 2, "--dist-url", url)
        command.all_end(60)
    (line,) = command.error_lines()
    assert f"--dist-url {url}: Address already in use" in line


@pytest.mark.thorough
def test_two_machines_and_torchrun_give_what_one_machine_gives(start, config, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    few = ("SOLVER.MAX_ITER", 2, "OUTPUT_DIR")
    machines = [
        start(
            *(*TRAIN, config, "--num-machines", 2, "--machine-rank", rank, "--dist-url", url),
            *(*few, tmp_path / "two"),
        )
        for rank in range(2)
    ]
    for command in machines:
        assert command.wait() == 0
    assert start(*TRAIN, config, *few, tmp_path / "run", launcher=TORCHRUN).wait() == 0
    assert start(*TRAIN, config, "--num-gpus", 2, *few, tmp_path / "one").wait() == 0
    one, two, run = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        for name in ("one", "two", "run")
    )
    assert all(torch.equal(one[key], two[key]) and torch.equal(one[key], run[key]) for key in one)
