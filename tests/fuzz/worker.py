"""The process in which files are read: it may die, hang or grow, and is started again."""

import json
import os
import re
import resource
import sys
import time
import traceback
import warnings

from fuzz.readers import READERS
from sparsedet.errors import InputError

SECONDS = 10  # of the processor, as others may be at work; a reader that takes more has failed
GROWTH = 2**30  # bytes; a reader that takes more has failed
MEMORY = 6 * 2**30  # bytes beyond what is taken at the start, at which allocations fail
# What no reader does; config writes a file for detectron2 to read.
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.", "socket.", "pty.")
# What Python, NumPy, torch and C++ say of it. HDF5 tells a wrong length by trying to allocate it.
NO_MEMORY = re.compile("MemoryError|bad_alloc|CPUAllocator|[Uu]nable to allocate [0-9]")
events: list[str] = []


def watch(event: str, arguments: tuple) -> None:
    if event.startswith(FORBIDDEN):
        events.append(f"{event}{arguments}")


def outcome(name: str, path: str) -> tuple[str, str]:
    """("result" or "refused" or what went wrong, and what was said)."""
    try:
        READERS[name].read(path)
        return "result", ""
    except InputError as error:
        text = str(error)
        if NO_MEMORY.search(f"{text} {error.__cause__!r} {error.__context__!r}"):
            return "growth", text  # which the limit has stopped
        return ("two lines", text) if "\n" in text else ("refused", text)
    except BaseException:
        return "exception", traceback.format_exc()


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory() -> None:
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(watch)
    warm = set()
    for line in sys.stdin:
        name, path = json.loads(line)
        before, start = peak(), time.process_time()
        kind, text = outcome(name, path)
        if name not in warm:  # the file is as it was; libraries were loaded, threads started
            warm.add(name)
            limit_memory()
        elif time.process_time() - start > SECONDS:
            kind, text = "hang", f"{time.process_time() - start:.0f} s"
        elif peak() - before > GROWTH:
            kind, text = "growth", f"{(peak() - before) >> 20} MB"
        elif events or os.path.exists("intruder"):
            kind, text = "code run", "; ".join(events)
        events.clear()
        answers.write(json.dumps([kind, text]) + "\n")


if __name__ == "__main__":
    main()
