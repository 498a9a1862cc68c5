"""Linux system calls that Python does not offer, through the C library, and the names of their constants.

``unshare`` comes with Python 3.12, ``prctl``, ``mount`` and ``capset`` with no version, hence ctypes.
Source of the constants: the kernel's headers ``linux/sched.h``, ``mount.h``, ``prctl.h``, ``capability.h``.
"""

from __future__ import annotations

import ctypes
import enum
import os
import struct

__all__ = ["Mount", "Namespace", "Prctl", "capset_none", "mount", "prctl", "unshare"]


class Namespace(enum.IntFlag):
    """What a process can have a private view of: the ``CLONE_NEW…`` flags."""

    MOUNTS = 0x00020000  # CLONE_NEWNS, the first one, named before there were others
    CGROUPS = 0x02000000
    HOSTNAME = 0x04000000  # CLONE_NEWUTS
    IPC = 0x08000000  # shared memory, semaphores, message queues
    USERS = 0x10000000
    PROCESSES = 0x20000000  # CLONE_NEWPID
    NETWORK = 0x40000000


class Mount(enum.IntFlag):
    """Flags of a mount: ``MS_…``."""

    READ_ONLY = 1
    NO_SETUID = 2
    NO_DEVICES = 4
    RECURSIVE = 0x4000
    PRIVATE = 0x40000  # changes stay in this mount namespace


class Prctl(enum.IntEnum):
    """Options of ``prctl``: ``PR_…``."""

    SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
    SET_DUMPABLE = 4
    SET_SECCOMP = 22
    DROP_BOUNDING_CAPABILITY = 24  # PR_CAPBSET_DROP
    SET_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS


CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
CAPABILITY_SETS = bytes(24)  # effective, permitted and inheritable, two words of 32 bits each: all empty


def unshare(namespaces: Namespace) -> None:
    """Move this process (for ``PROCESSES``: its next child) into new namespaces of these kinds.

    Raises:
        OSError: the kernel refuses.
    """
    _call("unshare", int(namespaces))


def mount(source: str | None, target: str, kind: str | None, flags: Mount, options: str | None) -> None:
    """Mount a file system, or change how one is mounted.

    Raises:
        OSError: the kernel refuses.
    """
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    _call("mount", *texts[:3], int(flags), texts[3])


def prctl(option: Prctl, value: int, argument: ctypes.c_char_p | int = 0) -> None:
    """Change a property of this process.

    Raises:
        OSError: the kernel refuses.
    """
    _call("prctl", int(option), int(value), argument, 0, 0)


def capset_none() -> None:
    """Take all capabilities from this process.

    Raises:
        OSError: the kernel refuses.
    """
    this_process = 0
    _call("capset", struct.pack("Ii", CAPABILITY_VERSION, this_process), CAPABILITY_SETS)


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns -1 where the kernel refuses."""
    converted = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*converted) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
