"""Several training processes, on GPUs or on CPUs."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch as launch_on_gpus
from detectron2.utils import comm

from ..compat import set_local_process_group

TIMEOUT = timedelta(minutes=30)


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

    On GPUs it is detectron2's own. On ``device`` "cpu" the processes talk through Gloo, which
    detectron2's does not offer, and share this machine's cores evenly.
    """
    world_size = processes_per_machine * num_machines
    if device != "cpu" or world_size == 1:
        launch_on_gpus(main, processes_per_machine, num_machines, machine_rank, dist_url, args)
        return
    if dist_url == "auto":
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    threads = max(1, torch.get_num_threads() // processes_per_machine)
    mp.spawn(
        _worker,
        nprocs=processes_per_machine,
        args=(main, processes_per_machine, num_machines, machine_rank, dist_url, args, threads),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _worker(local_rank, main, per_machine, num_machines, machine_rank, dist_url, args, threads):
    torch.set_num_threads(threads)
    dist.init_process_group(
        "gloo",
        init_method=dist_url,
        world_size=per_machine * num_machines,
        rank=machine_rank * per_machine + local_rank,
        timeout=TIMEOUT,
    )
    # Every process must take part in creating every group.
    for machine in range(num_machines):
        ranks = range(machine * per_machine, (machine + 1) * per_machine)
        group = dist.new_group(list(ranks))
        if machine == machine_rank:
            set_local_process_group(comm, group)
    comm.synchronize()
    main(*args)
    comm.synchronize()
    dist.destroy_process_group()
