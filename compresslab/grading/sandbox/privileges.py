"""Drop the privileges of a process before it runs a student's code: capabilities, user, system calls."""

from __future__ import annotations

import contextlib
import os
import signal

from compresslab.grading.sandbox.kernel import Prctl, capset_none, prctl
from compresslab.grading.sandbox.syscalls import install_filter

__all__ = ["drop_privileges", "end_with_parent"]

CAPABILITIES = range(64)  # more than any kernel has


def drop_privileges(user: int) -> None:
    """Leave this process without any privilege and without a way to regain one.

    Args:
        user: the user that it becomes, 0 to stay the one it is.

    Raises:
        OSError: the kernel refuses.
        CompressionError: this kit has no system call numbers for this machine's architecture.
    """
    for capability in CAPABILITIES:
        with contextlib.suppress(OSError):  # this kernel has no such capability
            prctl(Prctl.DROP_BOUNDING_CAPABILITY, capability)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    capset_none()
    prctl(Prctl.SET_NO_NEW_PRIVILEGES, 1)  # set-user-id programs give none
    prctl(Prctl.SET_DUMPABLE, 0)  # no process of the same user reads its memory
    end_with_parent()  # a change of user forgets an earlier setting
    install_filter()


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends.

    Raises:
        OSError: the kernel refuses.
    """
    prctl(Prctl.SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
