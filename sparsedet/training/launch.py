"""Several training processes, on GPUs or on CPUs, that end together.

detectron2's launcher starts them, through torch's; under torchrun they are there already. What is
added is how they end: with the process that started them, with one another, and in one line.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException

from ..compat import die_with_parent, distributed_worker
from ..errors import InputError

LAUNCHER = importlib.import_module("detectron2.engine.launch")  # its package has a function, too

GRACE = 3  # seconds in which a process ends by itself when it is told to, or another one has ended


def launch(
    main: Callable,
    processes_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple = (),
    device: str = "cuda",
) -> None:
    """Call ``main(*args)`` in each process of a job; as ``detectron2.engine.launch`` does.

    On ``device`` "cpu" the processes of a machine share its cores evenly. In a process that
    torchrun started, torchrun's numbers count.

    Raises:
        InputError: ``dist_url`` cannot be used, or a process was killed.
    """
    environment = os.environ
    by_torchrun = {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys()
    processes = processes_per_machine * num_machines
    if by_torchrun:
        processes = int(environment["WORLD_SIZE"])
        processes_per_machine = int(environment.get("LOCAL_WORLD_SIZE", processes))
    if device == "cpu" and processes > 1:
        environment["CUDA_VISIBLE_DEVICES"] = ""  # or they would talk through NCCL
    if by_torchrun:
        die_with_parent()
        if processes > 1:
            local, rank = int(environment["LOCAL_RANK"]), int(environment["RANK"])
            machine = (rank - local) // processes_per_machine
            sizes = processes, processes_per_machine, machine
            distributed_worker(LAUNCHER, local, _process, *sizes, "env://", (main, args))
        else:
            _process(main, args)
        return
    if processes == 1:
        _process(main, args)
        return
    _check_address(dist_url, num_machines, machine_rank)
    threads = max(1, torch.get_num_threads() // processes_per_machine) if device == "cpu" else None
    try:
        LAUNCHER.launch(
            _started,
            processes_per_machine,
            num_machines,
            machine_rank,
            dist_url,
            (main, args, threads),
        )
    except ProcessExitedException as error:
        raise InputError(
            f"{error}, such as when memory is short; all others were ended, and --resume goes on "
            "from the last checkpoint"
        ) from error
    finally:
        _end(multiprocessing.active_children())  # Ctrl-C ends torch's waiting, not its processes


def _started(main: Callable, args: tuple, threads: int | None) -> None:
    """What a process does that we started."""
    die_with_parent()
    if threads:
        torch.set_num_threads(threads)
    _process(main, args)


def _process(main: Callable, args: tuple) -> None:
    try:
        main(*args)
    except (RuntimeError, OSError, EOFError) as error:
        text = " ".join(str(error).split())
        # A worker's end is seen where its pictures are fetched, or by torch's watch on it.
        if isinstance(error, (ConnectionError, EOFError)) or "DataLoader worker" in text:
            raise InputError(
                f"a process that reads images ended ({text.split('. ')[0]}), such as when memory "
                "is short: lower DATALOADER.NUM_WORKERS; --resume goes on from the last checkpoint"
            ) from error
        if isinstance(error, dist.DistError) or "gloo" in text:
            time.sleep(GRACE)  # the one that ended first is to be heard first
            raise InputError(
                "another process of this training ended; its own message says why, and --resume "
                "goes on from the last checkpoint"
            ) from error
        raise


def _check_address(url: str, num_machines: int, machine_rank: int) -> None:
    if not 0 <= machine_rank < num_machines:
        raise InputError(f"--machine-rank is {machine_rank}; it is from 0 to {num_machines - 1}")
    if url == "auto":
        if num_machines > 1:
            raise InputError(
                "--dist-url: for several machines, name a free port of machine 0, such as "
                "tcp://HOST:29500"
            )
        return
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(f"--dist-url {url}: {error}") from error
    if parts.scheme == "tcp" and not port:
        raise InputError(f"--dist-url {url}: has no port; it is like tcp://HOST:29500")
    if parts.scheme == "tcp" and machine_rank == 0:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise InputError(
                f"--dist-url {url}: {error.strerror}; name another port"
                + ("" if num_machines > 1 else ", or leave it out")
            ) from error


def _end(children: list[multiprocessing.Process]) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + GRACE
    for child in children:
        child.join(max(0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()
            child.join()
