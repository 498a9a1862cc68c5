"""The system calls that a student's code may not make, and the seccomp filter that refuses them.

A seccomp filter is a small program that the kernel runs before each system call of a process, and of every
process that it starts. It sees the call's number and arguments, and answers: allow it, or fail with an error.
The numbers differ between processor architectures, so ``REFUSED`` names the calls and has a column for each.

Where a call is refused the student's code gets ``PermissionError``, as from any other lack of permission.

Source of the numbers: Linux, ``arch/x86/entry/syscalls/syscall_64.tbl`` and (aarch64)
``include/uapi/asm-generic/unistd.h``; of the filter's layout: ``linux/seccomp.h``, ``filter.h``, ``audit.h``.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import platform
import struct
from dataclasses import dataclass
from typing import NamedTuple

from compresslab.errors import NotAvailable
from compresslab.grading.sandbox.kernel import Namespace, Prctl, prctl

__all__ = [
    "ARCHITECTURES",
    "REFUSED",
    "Action",
    "Architecture",
    "Code",
    "Instruction",
    "Offset",
    "Syscall",
    "architecture",
    "filter_program",
    "install_filter",
]


@dataclass(frozen=True)
class Syscall:
    """The number of a system call on each architecture."""

    x86_64: int
    aarch64: int


REFUSED = {
    # Sockets: abstract Unix sockets of the same network namespace, and kinds that know no namespace.
    "socket": Syscall(x86_64=41, aarch64=198),
    # The memory of other processes.
    "ptrace": Syscall(x86_64=101, aarch64=117),
    "process_vm_readv": Syscall(x86_64=310, aarch64=270),
    "process_vm_writev": Syscall(x86_64=311, aarch64=271),
    # Memory that no limit counts.
    "memfd_create": Syscall(x86_64=319, aarch64=279),
    "memfd_secret": Syscall(x86_64=447, aarch64=447),
    "vmsplice": Syscall(x86_64=278, aarch64=75),
    "shmget": Syscall(x86_64=29, aarch64=194),
    "msgget": Syscall(x86_64=68, aarch64=186),
    "semget": Syscall(x86_64=64, aarch64=190),
    # Keys that outlive the process.
    "add_key": Syscall(x86_64=248, aarch64=217),
    "request_key": Syscall(x86_64=249, aarch64=218),
    "keyctl": Syscall(x86_64=250, aarch64=219),
    # Large interfaces of the kernel, where its own faults have been found.
    "bpf": Syscall(x86_64=321, aarch64=280),
    "userfaultfd": Syscall(x86_64=323, aarch64=282),
    "perf_event_open": Syscall(x86_64=298, aarch64=241),
    "io_uring_setup": Syscall(x86_64=425, aarch64=425),
    # Namespaces and mounts within the sandbox.
    "unshare": Syscall(x86_64=272, aarch64=97),
    "setns": Syscall(x86_64=308, aarch64=268),
    "mount": Syscall(x86_64=165, aarch64=40),
    "umount2": Syscall(x86_64=166, aarch64=39),
    "pivot_root": Syscall(x86_64=155, aarch64=41),
    "chroot": Syscall(x86_64=161, aarch64=51),
    "open_tree": Syscall(x86_64=428, aarch64=428),
    "move_mount": Syscall(x86_64=429, aarch64=429),
    "fsopen": Syscall(x86_64=430, aarch64=430),
}

# Calls that are refused for some arguments only.
CLONE = Syscall(x86_64=56, aarch64=220)  # refused where it makes namespaces
CLONE3 = Syscall(x86_64=435, aarch64=435)  # its flags lie in memory, which no filter can read: see below
MMAP = Syscall(
    x86_64=9, aarch64=222
)  # refused where the memory is shared: once unmapped nobody seems to hold it

MAP_SHARED = 1
NEW_NAMESPACES = (
    Namespace.MOUNTS
    | Namespace.CGROUPS
    | Namespace.HOSTNAME
    | Namespace.IPC
    | Namespace.USERS
    | Namespace.PROCESSES
    | Namespace.NETWORK
)
X32 = 0x40000000  # added to a number it makes the same call by x86-64's other calling convention


class Architecture(enum.Enum):
    """A processor architecture: its name for ``platform.machine()`` and its mark in seccomp's data."""

    X86_64 = ("x86_64", 0xC000003E)  # AUDIT_ARCH_X86_64
    AARCH64 = ("aarch64", 0xC00000B7)  # AUDIT_ARCH_AARCH64

    @property
    def machine(self) -> str:
        return self.value[0]

    @property
    def audit(self) -> int:
        return self.value[1]

    def number(self, call: Syscall) -> int:
        """Return the call's number on this architecture."""
        return getattr(call, self.machine)


ARCHITECTURES = tuple(each.machine for each in Architecture)


def architecture(machine: str) -> Architecture:
    """Return the architecture of this name.

    Raises:
        CompressionError: this kit has no system call numbers for it.
    """
    for each in Architecture:
        if each.machine == machine:
            return each
    raise NotAvailable(
        f"the processor architecture {machine!r} has no table of system calls in this kit; expected one of "
        f"{', '.join(ARCHITECTURES)}; grade on such a machine"
    )


# The filter: a program for the kernel's classic BPF machine, with one register.


class Code(enum.IntEnum):
    """What an instruction does: a class, a size or test, and a mode of ``linux/bpf_common.h``."""

    LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS: the 32 bits at an offset of the call's data
    JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
    JUMP_IF_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
    JUMP_IF_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
    RETURN = 0x06  # BPF_RET | BPF_K


class Action(enum.IntEnum):
    """What the kernel does with a call: ``SECCOMP_RET_…`` and, for an error, its number."""

    ALLOW = 0x7FFF0000
    REFUSE = 0x00050000 | errno.EPERM
    NOT_IMPLEMENTED = 0x00050000 | errno.ENOSYS


class Offset(enum.IntEnum):
    """Where the parts of a call lie in ``struct seccomp_data``; of an argument the lower 32 bits."""

    NUMBER = 0
    ARCHITECTURE = 4
    ARGUMENT_0 = 16
    ARGUMENT_3 = 16 + 3 * 8


class Instruction(NamedTuple):
    """``struct sock_filter``: a jump says how many instructions are passed over."""

    code: Code
    if_true: int
    if_false: int
    operand: int


def filter_program(machine: str) -> list[Instruction]:
    """Return the filter for an architecture; every call that it does not name is allowed.

    Raises:
        CompressionError: this kit has no system call numbers for the architecture.
    """
    here = architecture(machine)
    return [
        _load(Offset.ARCHITECTURE),
        Instruction(Code.JUMP_IF_EQUAL, 1, 0, here.audit),
        _return(Action.REFUSE),  # a call of another architecture has other numbers
        _load(Offset.NUMBER),
        *_answer_if(Code.JUMP_IF_AT_LEAST, X32, Action.REFUSE),
        *(
            instruction
            for call in REFUSED.values()
            for instruction in _answer_if(Code.JUMP_IF_EQUAL, here.number(call), Action.REFUSE)
        ),
        # The C library then falls back on clone, whose flags are an argument.
        *_answer_if(Code.JUMP_IF_EQUAL, here.number(CLONE3), Action.NOT_IMPLEMENTED),
        *_refuse_with_bits(here.number(CLONE), Offset.ARGUMENT_0, NEW_NAMESPACES),
        *_refuse_with_bits(here.number(MMAP), Offset.ARGUMENT_3, MAP_SHARED),
        _return(Action.ALLOW),
    ]


def install_filter() -> None:
    """Refuse the named calls to this process and its children, for good; needs ``SET_NO_NEW_PRIVILEGES``.

    Raises:
        CompressionError: this kit has no system call numbers for this machine's architecture.
        OSError: the kernel refuses.
    """
    program = filter_program(platform.machine())
    mode_filter = 2  # SECCOMP_MODE_FILTER
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    whole = struct.pack("HP", len(program), ctypes.addressof(instructions))  # struct sock_fprog
    prctl(Prctl.SET_SECCOMP, mode_filter, ctypes.c_char_p(whole))


def _load(offset: Offset) -> Instruction:
    return Instruction(Code.LOAD, 0, 0, offset)


def _return(action: Action) -> Instruction:
    return Instruction(Code.RETURN, 0, 0, action)


def _answer_if(test: Code, operand: int, action: Action) -> list[Instruction]:
    """Return the action where the register passes the test; go on otherwise."""
    return [Instruction(test, 0, 1, operand), _return(action)]


def _refuse_with_bits(number: int, argument: Offset, bits: int) -> list[Instruction]:
    """Refuse the call of this number where its argument has any of these bits; go on otherwise."""
    body = [
        _load(argument),
        *_answer_if(Code.JUMP_IF_ANY_BIT, bits, Action.REFUSE),
        _load(Offset.NUMBER),
    ]
    return [Instruction(Code.JUMP_IF_EQUAL, 0, len(body), number), *body]
