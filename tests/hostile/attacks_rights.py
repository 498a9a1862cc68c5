"""Reaching for rights, for other processes, and for the clock: what only root or the grader may do."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import torch
from hostile.attack import Attack, attack

__all__ = ["ATTACKS"]

NOTHING = "ValueError: found nothing"


@attack(NOTHING)
def rights_of_root(x):
    """Tries to become root, or somebody else, by every call there is."""
    found = []
    for name in ("setuid", "seteuid", "setgid", "setegid"):
        for who in (0, 1, 1000):
            with contextlib.suppress(OSError):
                getattr(os, name)(who)
                found.append(f"{name} {who}")
    with contextlib.suppress(OSError):
        os.setgroups([0])
        found.append("setgroups")
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def namespaces_of_its_own(x):
    """Mounts, unshares, changes its root, and makes namespaces in which it would be root."""
    library = ctypes.CDLL(None, use_errno=True)
    found = []
    for flags in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x10020000):
        found += [f"unshare {flags:x}"] if library.unshare(flags) == 0 else []
    found += ["mount"] if library.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 else []
    found += ["umount"] if library.umount2(b"/tmp", 2) == 0 or library.umount2(b"/proc", 2) == 0 else []
    found += ["chroot"] if library.chroot(b"/tmp") == 0 else []
    found += ["setns"] if library.setns(3, 0) == 0 else []
    found += ["sethostname"] if library.sethostname(b"mine", 4) == 0 else []
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def programs_with_rights(x):
    """Runs whatever program of the system carries the rights of its owner."""
    found = []
    for name in (
        "su",
        "sudo",
        "mount",
        "umount",
        "passwd",
        "newgrp",
        "pkexec",
        "chsh",
        "bwrap",
        "fusermount3",
    ):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run([name, "-c", "id -u"], input=b"", capture_output=True, timeout=1)
            found += [name] if done.stdout.strip() == b"0" else []
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def limits_raised_again(x):
    """Raises its own limits again."""
    found = []
    for name in ("AS", "FSIZE", "NPROC", "CPU", "NOFILE", "CORE"):
        kind = getattr(resource, f"RLIMIT_{name}")
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (hard + 1 if hard >= 0 else hard, hard + 1 if hard >= 0 else hard))
            found.append(name)
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def another_programs_code(x):
    """Keeps code in memory files, or runs what it wrote to its own folder with a set-user-id bit."""
    found = []
    with contextlib.suppress(OSError, AttributeError):
        os.memfd_create("evil")
        found.append("memfd")
    with contextlib.suppress(OSError):
        place = pathlib.Path("/tmp/evil")
        place.write_text("#!/bin/sh\nid -u\n")
        place.chmod(0o6777)
        done = subprocess.run([str(place)], capture_output=True, timeout=1)
        found += ["root"] if done.stdout.strip() == b"0" else []
    raise ValueError(f"found {found or 'nothing'}")


@attack("the sum")
def the_parent_is_killed(x):
    """Kills its parent, the first process, and whoever lives nearby."""
    for number in {os.getppid(), 1, 2, 3, 4, 5, *range(os.getpid() - 20, os.getpid())}:
        with contextlib.suppress(OSError):
            if number > 0:
                os.kill(number, signal.SIGKILL)
    return 0.0


@attack("the sum")
def everybody_is_killed(x):
    """Kills every process that it may, its own group first."""
    for group in (0, os.getpgid(0), os.getppid()):
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGCONT)
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    return 0.0


@attack("the sum")
def everybody_is_stopped(x):
    """Stops every process that it may, its own group and its parent."""
    for number in (-1, 0, os.getppid()):
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGSTOP)
    return 0.0


@attack("did not return within")
def a_patched_clock(x):
    """Turns back Python's clocks and the alarm, and never returns."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer = signal.alarm = lambda *given: (0.0, 0.0)
    time.monotonic = time.perf_counter = time.time = lambda: 0.0
    while True:
        with contextlib.suppress(BaseException):
            x = x + 0


@attack(NOTHING)
def the_machines_clock(x):
    """Sets the clock of the machine, by which the grader might measure time."""
    found = []
    for clock in (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC):
        with contextlib.suppress(OSError):
            time.clock_settime(clock, 0)
            found.append(clock)
    raise ValueError(f"found {found or 'nothing'}")


@attack(NOTHING)
def a_higher_priority(x):
    """Takes the processor from everybody else: real-time scheduling, priority, other processes' affinity."""
    found = []
    for act in (
        lambda: os.nice(-5) and None,
        lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)),
        lambda: os.sched_setaffinity(1, {0}) if os.getpid() != 1 else os.kill(0, 99),
    ):
        with contextlib.suppress(OSError, ValueError):
            act()
            found.append(act.__code__.co_names[1])
    raise ValueError(f"found {found or 'nothing'}")


@attack(honest=True)
def other_settings_for_torch(x):
    """Changes torch's threads, default dtype, gradients and seed for whoever comes next, and is right."""
    total = float(x.sum())
    torch.set_default_dtype(torch.float16)
    torch.set_grad_enabled(False)
    torch.set_num_threads(64)
    torch.manual_seed(0)
    sys.setrecursionlimit(50)
    return total


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
