"""Taking time, memory, processes, files and stack until nobody else has any. Every bomb here has an end."""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import pathlib
import signal
import sys
import threading
import time

import numpy as np
import torch
from hostile.attack import FOLDER, Attack, attack

__all__ = ["ATTACKS"]


@attack("did not return within")
def an_endless_loop(x):
    """Never returns."""
    while True:
        pass


@attack("did not return within")
def an_endless_loop_that_ignores_signals(x):
    """Never returns, ignores every signal and swallows every exception."""
    for number in range(1, 65):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1)


@attack("did not return within")
def an_endless_call_in_c(x):
    """Never returns from a computation in C, where Python sees no signal."""
    return pow(7, 7**12, 13**100_000) + sum(range(10**13))


@attack("can't allocate memory")
def ten_gigabytes(x):
    """Asks for 10 GB at once, and writes to them."""
    return float(torch.ones(10 * 2**28).sum())


@attack("MemoryError")
def ten_gigabytes_in_small_pieces(x):
    """Takes memory a little at a time and keeps all of it, until 10 GB."""
    kept = []
    for _ in range(160):
        kept.append(np.empty(2**23))
    return 0.0


@attack("your ")
def ten_gigabytes_in_many_processes(x):
    """Takes 1 GB in each of ten children, as limits bind one process each."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for _ in range(10):
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                with contextlib.suppress(BaseException):
                    kept = bytearray(b"x") * 2**30
                    time.sleep(3)
                    del kept
                os._exit(0)
    time.sleep(2.5)
    return 0.0


@attack("the sum")
def memory_that_outlives_it(x):
    """Hoards shared memory: anonymous maps, /dev/shm and System V segments, which no exit gives back."""
    with contextlib.suppress(OSError):
        mmap.mmap(-1, 2 * 2**30).write(b"x" * 2**20)
    for number in range(100):
        with contextlib.suppress(OSError):
            pathlib.Path(f"/dev/shm/hoard-{number}").write_bytes(bytes(10 * 2**20))
        with contextlib.suppress(OSError):
            os.memfd_create(f"hoard-{number}")
    for _ in range(100):
        ctypes.CDLL(None).shmget(0, ctypes.c_size_t(10 * 2**20), 0o1777)
    return 0.0


@attack(honest=True)
def a_million_small_files(x):
    """Makes small files until somebody says stop, and is right."""
    total = float(x.sum())
    with contextlib.suppress(OSError):
        for number in range(1_000_000):
            os.close(os.open(f"/tmp/{number}", os.O_CREAT | os.O_WRONLY))
    return total


@attack(honest=True)
def a_huge_sparse_file(x):
    """Makes a file of 100 GB that holds nothing, and one that holds all there is, and is right."""
    total = float(x.sum())
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for place in ("/tmp", FOLDER, "/dev/shm", "/"):
        with contextlib.suppress(OSError), open(f"{place}/huge", "wb") as file:
            file.truncate(100 * 2**30)
        with contextlib.suppress(OSError), open(f"{place}/full", "wb") as file:
            for _ in range(200):
                file.write(bytes(2**20))
    return total


@attack(honest=True)
def a_fork_bomb(x):
    """Forks, and so does each child, until somebody says stop; is right all the same."""
    total = float(x.sum())
    me = os.getpid()
    with contextlib.suppress(OSError):
        for _ in range(9):  # 2⁹ processes where nothing stops it
            os.fork()
    if os.getpid() != me:
        time.sleep(5)
        os._exit(0)
    return total


@attack("can't start new thread")
def a_thread_bomb(x):
    """Starts threads until somebody says stop."""
    for _ in range(2_000):
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
    return 0.0


@attack(honest=True)
def a_daemon(x):
    """Leaves a process in a session of its own, which waits and then writes to everything; is right."""
    total = float(x.sum())
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for _ in range(40):
                time.sleep(0.25)
                for place in (f"{FOLDER}/gradebook.db", "/tmp/results.json"):
                    with contextlib.suppress(OSError):
                        pathlib.Path(place).write_text("owned")
                for pipe in (3, 4, 5):
                    with contextlib.suppress(OSError):
                        os.write(pipe, b"owned")
        os._exit(0)
    return total


@attack("ended its process")
def a_daemon_that_holds_the_channel(x):
    """Ends, while a child of it keeps the record's channel open and says nothing."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(30)
    os._exit(0)


@attack("RecursionError")
def deep_recursion(x):
    """Calls itself without end."""
    return deep_recursion(x) + 1


# From Python 3.12 on C has a limit of its own, which nobody lifts.
@attack("RecursionError" if sys.version_info >= (3, 12) else "ended its process")
def deep_recursion_without_a_limit(x):
    """Lifts Python's own limit and calls itself until the stack is used up."""
    sys.setrecursionlimit(10**9)

    class Deep:
        def __repr__(self):
            return repr(self)

    return len(repr(Deep()))


@attack("yours is a tuple")
def a_value_nested_without_end(x):
    """Returns tuples, lists and dicts nested 100,000 deep, to break whoever walks, prints or frees them."""
    value = ()
    for _ in range(100_000):
        value = ({"a": [value]},)
    return value


@attack("yours is a list")
def a_text_without_end(x):
    """Returns a string of 200 MB, and JSON of as many brackets."""
    return ["x" * 200_000_000, "[" * 10_000_000, json.dumps("y" * 10_000_000)]


@attack("too large to record")
def twenty_large_arrays(x):
    """Returns as many numbers as one array may hold, twenty times."""
    return [torch.ones(4_000_000)] * 20


@attack("yours is a list")
def files_left_open(x):
    """Opens files until somebody says stop, so that the record may not be written."""
    kept = []
    with contextlib.suppress(OSError):
        while True:
            kept.append(os.dup(0))
    return [0.0, len(kept)]


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
