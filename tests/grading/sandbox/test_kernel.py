"""Linux's own calls: the constants are those of the kernel's headers, and a refusal is an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from compresslab.grading.sandbox import kernel, syscalls
from compresslab.grading.sandbox.kernel import Mount, Namespace, Prctl

HEADERS = Path("/usr/include/linux")
CONSTANTS = [
    ("sched.h", "CLONE_NEWNS", Namespace.MOUNTS),
    ("sched.h", "CLONE_NEWCGROUP", Namespace.CGROUPS),
    ("sched.h", "CLONE_NEWUTS", Namespace.HOSTNAME),
    ("sched.h", "CLONE_NEWIPC", Namespace.IPC),
    ("sched.h", "CLONE_NEWUSER", Namespace.USERS),
    ("sched.h", "CLONE_NEWPID", Namespace.PROCESSES),
    ("sched.h", "CLONE_NEWNET", Namespace.NETWORK),
    ("mount.h", "MS_RDONLY", Mount.READ_ONLY),
    ("mount.h", "MS_NOSUID", Mount.NO_SETUID),
    ("mount.h", "MS_NODEV", Mount.NO_DEVICES),
    ("mount.h", "MS_REC", Mount.RECURSIVE),
    ("mount.h", "MS_PRIVATE", Mount.PRIVATE),
    ("prctl.h", "PR_SET_PDEATHSIG", Prctl.SET_PARENT_DEATH_SIGNAL),
    ("prctl.h", "PR_SET_DUMPABLE", Prctl.SET_DUMPABLE),
    ("prctl.h", "PR_SET_SECCOMP", Prctl.SET_SECCOMP),
    ("prctl.h", "PR_CAPBSET_DROP", Prctl.DROP_BOUNDING_CAPABILITY),
    ("prctl.h", "PR_SET_NO_NEW_PRIVS", Prctl.SET_NO_NEW_PRIVILEGES),
    ("capability.h", "_LINUX_CAPABILITY_VERSION_3", kernel.CAPABILITY_VERSION),
    ("mman.h", "MAP_SHARED", syscalls.MAP_SHARED),
    ("seccomp.h", "SECCOMP_RET_ALLOW", syscalls.Action.ALLOW),
    ("seccomp.h", "SECCOMP_RET_ERRNO", syscalls.Action.REFUSE & 0xFFFF0000),
    ("seccomp.h", "SECCOMP_RET_ERRNO", syscalls.Action.NOT_IMPLEMENTED & 0xFFFF0000),
]


@pytest.mark.parametrize(("header", "name", "value"), CONSTANTS, ids=[name for _, name, _ in CONSTANTS])
def test_a_constant_is_that_of_the_kernels_header(header, name, value):
    if not (HEADERS / header).is_file():
        pytest.skip("the kernel's headers are not installed (linux-libc-dev)")
    text = (HEADERS / header).read_text()
    number = r"(0x[0-9a-fA-F]+|\d+)U?\b"
    ((plain, one, bit),) = re.findall(
        rf"^\s*#\s*define\s+{name}\s+(?:{number}|\({number}<<{number}\))", text, re.MULTILINE
    )
    assert (int(plain, 0) if plain else int(one) << int(bit)) == value


@pytest.mark.skipif(sys.platform != "linux", reason="these calls are Linux's")
def test_a_refusal_of_the_kernel_is_an_error():
    with pytest.raises(OSError, match="prctl: "):
        kernel._call("prctl", 2**20, 0, 0, 0, 0)
