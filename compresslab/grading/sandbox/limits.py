"""Takes everything from a process before it runs a student's code: names, files, rights, memory, time.

The worker lives in a sandbox without network, home and course files (``sandbox.py``). For each exercise one
of its children makes a *fresh* room inside: own process numbers, own empty folder, no ``/proc``, own shared
memory. In there the student's code runs as an ordinary user without any right, behind limits that root would
have to obey too; when it ends, or its time is over, the kernel ends every process of the room.

Linux alone. Python has no words of its own for namespaces (before 3.12), ``prctl`` and seccomp, hence ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import struct
import sys

__all__ = ["Watch", "give_up_rights", "limit", "make_room", "mapped"]

MEMORY = 4 * 2**30  # bytes, beside what torch itself has mapped
LARGEST_FILE = 16 * 2**20  # bytes
OPEN_FILES = 64
PROCESSES = 12  # threads count too, and where the grader is no root its own four
ROOM = "/room"  # the one folder that can be written to
CAPACITY = b"size=64m,nr_inodes=4096,mode=1777"  # of it: bytes and files

_NEWNS, _NEWIPC, _NEWPID = 0x00020000, 0x08000000, 0x20000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _RECURSIVE, _PRIVATE = 1, 2, 4, 0x4000, 0x40000
_PDEATHSIG, _DUMPABLE, _SECCOMP, _CAPBSET_DROP, _NO_NEW_PRIVS = 1, 4, 22, 24, 38


def make_room() -> None:
    """Gives this process's next child a room of its own; needs the rights that the sandbox gives its worker.

    Raises:
        OSError: the kernel refuses.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # where memory runs out all the same, the kernel ends this before the grader
    _call("unshare", _NEWNS | _NEWIPC | _NEWPID)
    _call("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    _call("mount", b"tmpfs", ROOM.encode(), b"tmpfs", _NO_SUID | _NO_DEVICES, CAPACITY)
    _call("mount", b"tmpfs", b"/proc", b"tmpfs", _NO_SUID | _NO_DEVICES | _READ_ONLY, b"size=4k")


def give_up_rights(user: int) -> None:
    """Leaves this process with no right and no way back; ``user`` is who it becomes, 0 to stay who it is.

    Raises:
        OSError: the kernel refuses.
    """
    os.chdir(ROOM)
    for right in range(64):
        with contextlib.suppress(OSError):
            _call("prctl", _CAPBSET_DROP, right, 0, 0, 0)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    _call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _DUMPABLE, 0, 0, 0, 0)
    _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user forgets an earlier one
    _refuse_calls()


def mapped() -> int:
    """Bytes of address space in use already: torch's libraries alone may take several GB of it."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def limit(seconds: float, *, mapped: int, rooms: bool) -> None:
    """Limits memory, files and processor time; in a room of its own also how many processes there may be."""
    import resource  # there is none on Windows

    if sys.platform == "linux" and not rooms:
        _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    limits = {"AS": mapped + MEMORY, "FSIZE": LARGEST_FILE, "CPU": math.ceil(seconds) + 1, "CORE": 0}
    if rooms:  # elsewhere the student's user is the grader's, who has more processes than these
        limits |= {"NOFILE": OPEN_FILES, "NPROC": PROCESSES}
    for name, most in limits.items():
        with contextlib.suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


class Watch:
    """What a room takes in all, seen from outside: limits bind one process each. Made before the room is."""

    def __init__(self) -> None:
        self.processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        self.strangers = {"1", str(os.getppid()), str(os.getpid())}
        self.of_a_fork = self._resident(str(os.getpid()))  # what each fork of the worker holds from the start

    def too_much(self) -> bool:
        """Whether the processes of the room together hold more memory than one may."""
        names = [name for name in os.listdir(self.processes) if name.isdecimal()]
        taken = [self._resident(name) - self.of_a_fork for name in names if name not in self.strangers]
        return sum(max(0, more) for more in taken) > MEMORY

    def _resident(self, name: str) -> int:
        with contextlib.suppress(OSError, IndexError):  # it may have ended by now
            place = os.open(f"{name}/statm", os.O_RDONLY, dir_fd=self.processes)
            try:
                return int(os.read(place, 200).split()[1]) * os.sysconf("SC_PAGE_SIZE")
            finally:
                os.close(place)
        return 0


# System calls that no answer needs, refused by the kernel (seccomp): other processes' memory, memory that no
# limit counts, keys that outlive a process, sockets (some kinds know no namespace), rooms within rooms, the
# kernel's own machines. In this order: socket, ptrace, process_vm_readv, process_vm_writev, memfd_create,
# memfd_secret, vmsplice, shmget, msgget, semget, add_key, request_key, keyctl, bpf, userfaultfd,
# perf_event_open, io_uring_setup, unshare, setns, mount, umount2, pivot_root, chroot, open_tree, move_mount,
# fsopen. Memory is shared by nobody (mmap's MAP_SHARED): when it is let go, no process seems to hold it.

_CALLS = {  # by machine: its name for seccomp, clone, clone3, mmap, and the calls above
    "x86_64": (0xC000003E, 56, 435, 9, (
        41, 101, 310, 311, 319, 447, 278, 29, 68, 64, 248, 249, 250, 321, 323, 298, 425, 272, 308, 165, 166,
        155, 161, 428, 429, 430,
    )),
    "aarch64": (0xC00000B7, 220, 435, 222, (
        198, 117, 270, 271, 279, 447, 75, 194, 186, 190, 217, 218, 219, 280, 282, 241, 425, 97, 268, 40, 39,
        41, 51, 428, 429, 430,
    )),
}  # fmt: skip
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050001, 0x00050026  # errno EPERM; ENOSYS, so that clone3 → clone
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_SHARED = 1  # the flag of mmap
_NEW_ROOMS = 0x7E020000  # the flags of clone that make namespaces


def _refuse_calls() -> None:
    if os.uname().machine not in _CALLS:
        return
    machine, clone, clone3, mmap, refused = _CALLS[os.uname().machine]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _REFUSE), (_LOAD, 0, 0, 0)]
    program += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _REFUSE)]  # the same calls by other numbers
    for number in refused:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    program += [(_EQUAL, 0, 4, mmap), (_LOAD, 0, 0, 40), (_ANY_BIT, 0, 1, _SHARED), (_RETURN, 0, 0, _REFUSE)]
    program += [(_LOAD, 0, 0, 0)]
    program += [(_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _UNKNOWN), (_EQUAL, 0, 3, clone), (_LOAD, 0, 0, 16)]
    program += [(_ANY_BIT, 0, 1, _NEW_ROOMS), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    whole = struct.pack("HP", len(program), ctypes.addressof(steps))
    _call("prctl", _SECCOMP, 2, ctypes.c_char_p(whole), 0, 0)


def _call(name: str, *arguments: object) -> None:
    """A function of the C library that says by -1 that the kernel refused."""
    kinds = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*kinds) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
