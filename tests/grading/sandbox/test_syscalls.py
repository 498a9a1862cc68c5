"""System calls: the numbers are the kernel's, and the filter refuses the named calls and no other."""

from __future__ import annotations

import errno
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compresslab.errors import CompressionError
from compresslab.grading.sandbox.syscalls import (
    ARCHITECTURES,
    CLONE,
    CLONE3,
    MMAP,
    REFUSED,
    Architecture,
    Code,
    filter_program,
)

KNOWN = REFUSED | {"clone": CLONE, "clone3": CLONE3, "mmap": MMAP}
ALLOWED, REFUSES, UNKNOWN = 0x7FFF0000, 0x00050000 + errno.EPERM, 0x00050000 + errno.ENOSYS
HEADERS = {
    "x86_64": ("x86_64-linux-gnu/asm/unistd_64.h", "asm/unistd_64.h"),
    "aarch64": ("asm-generic/unistd.h",),
}


def stored(machine: str) -> dict[str, int]:
    """The numbers of one architecture, as copied from the kernel's headers."""
    lines = Path(__file__).with_name("syscall_numbers.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    column = 1 + ["x86_64", "aarch64"].index(machine)
    return {row[0]: int(row[column]) for row in rows}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_each_number_is_that_of_the_kernel(machine):
    numbers = stored(machine)
    assert {name: getattr(call, machine) for name, call in KNOWN.items()} == {
        name: numbers[name] for name in KNOWN
    }


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_stored_numbers_are_those_of_this_machines_headers(machine):
    paths = [Path("/usr/include", name) for name in HEADERS[machine] if Path("/usr/include", name).is_file()]
    if not paths:
        pytest.skip("the kernel's headers are not installed (linux-libc-dev)")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)\b", paths[0].read_text()))
    assert {name: int(found[name]) for name in stored(machine)} == stored(machine)


# What the filter answers, by a machine of our own for its program.


def answer(program, *, audit: int, number: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
    """What the kernel would do with a call: runs the filter as ``man 2 seccomp`` describes."""
    call = number.to_bytes(4, "little") + audit.to_bytes(4, "little") + bytes(8)
    call += b"".join(argument.to_bytes(8, "little") for argument in arguments)
    register, index = 0, 0
    while True:
        code, if_true, if_false, operand = program[index]
        index += 1
        if code == Code.LOAD:
            register = int.from_bytes(call[operand : operand + 4], "little")
        elif code == Code.RETURN:
            return operand
        else:
            passes = {
                Code.JUMP_IF_EQUAL: register == operand,
                Code.JUMP_IF_AT_LEAST: register >= operand,
                Code.JUMP_IF_ANY_BIT: bool(register & operand),
            }[code]
            index += if_true if passes else if_false


@pytest.fixture(params=Architecture, ids=lambda each: each.machine)
def known(request):
    """An architecture, and what its filter does with a call."""
    program = filter_program(request.param.machine)

    def ask(number, *arguments, audit=request.param.audit):
        whole = (*arguments, *(0,) * (6 - len(arguments)))
        return answer(program, audit=audit, number=number, arguments=whole)

    return request.param, ask


def test_the_filter_refuses_the_named_calls_and_no_other(known):
    here, ask = known
    answers = {number: ask(number) for number in range(1_000)}
    assert {n for n, action in answers.items() if action == REFUSES} == {
        here.number(call) for call in REFUSED.values()
    }
    assert {n for n, action in answers.items() if action == UNKNOWN} == {here.number(CLONE3)}
    assert set(answers.values()) == {ALLOWED, REFUSES, UNKNOWN}


def test_a_clone_is_refused_where_it_makes_namespaces(known):
    here, ask = known
    threads, fork = 0x003D0F00, 17  # what glibc asks for a thread; SIGCHLD alone
    assert ask(here.number(CLONE), threads) == ask(here.number(CLONE), fork) == ALLOWED
    for kind in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(here.number(CLONE), fork | kind) == REFUSES


def test_memory_may_be_private_and_not_shared(known):
    here, ask = known
    private, shared, anonymous = 2, 1, 0x20
    assert ask(here.number(MMAP), 0, 4096, 3, private | anonymous) == ALLOWED
    assert ask(here.number(MMAP), 0, 4096, 3, shared | anonymous) == REFUSES
    assert ask(here.number(MMAP), 0, 4097, 1, private) == ALLOWED  # the other arguments do not matter


def test_a_call_by_another_convention_is_refused_whatever_it_is(known):
    here, ask = known
    others = {each.audit for each in Architecture} - {here.audit} | {0x40000003}  # 32-bit x86
    assert {ask(number, audit=audit) for audit in others for number in range(1_000)} == {REFUSES}
    assert {ask(0x40000000 + number) for number in range(1_000)} == {REFUSES}


def test_an_unknown_architecture_is_refused():
    with pytest.raises(CompressionError, match="architecture 'riscv64' has no table of system calls"):
        filter_program("riscv64")


# What the kernel of this machine answers.

TRY = """
import ctypes, json, mmap, os, sys
from compresslab.grading.sandbox.kernel import Prctl, prctl
from compresslab.grading.sandbox.syscalls import install_filter
calls = json.loads(sys.argv[1])
library = ctypes.CDLL(None, use_errno=True)
prctl(Prctl.SET_NO_NEW_PRIVILEGES, 1)
install_filter()
found = {}
for name, number in calls.items():
    ctypes.set_errno(0)
    library.syscall(ctypes.c_long(number), *(ctypes.c_long(-1),) * 6)
    found[name] = ctypes.get_errno()
try:
    mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    found["shared"] = 0
except OSError as error:
    found["shared"] = error.errno
mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
if os.fork() == 0:
    os._exit(0)
found["child"] = os.wait()[1]
print(json.dumps(found))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ARCHITECTURES, reason="no filter for this machine"
)
def test_the_kernel_refuses_the_named_calls_to_a_process_with_the_filter():
    machine = platform.machine()
    calls = {name: getattr(call, machine) for name, call in (REFUSED | {"clone3": CLONE3}).items()}
    done = subprocess.run(
        [sys.executable, "-c", TRY, json.dumps(calls)], capture_output=True, text=True, check=True
    )
    wanted = dict.fromkeys([*REFUSED, "shared"], errno.EPERM) | {"clone3": errno.ENOSYS, "child": 0}
    assert json.loads(done.stdout) == wanted
