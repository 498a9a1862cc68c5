"""OpenMP's waiting policy: how torch's threads wait for one another.

By default a thread that waits at the end of a parallel loop goes on asking, at full speed, for some
milliseconds before it sleeps. On a machine that is shared, such as a laptop with two notebooks open, that
takes the processor from the thread which is waited for. Passive threads sleep at once. OpenMP reads the
policy when torch is imported, so it is set in the environment of every process that this kit starts: the
kernels, the workers of long runs and of grading. ``python -m tests.benchmarks.waiting`` measures it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

__all__ = ["POLICY", "environment_for_children", "passive"]

POLICY = "OMP_WAIT_POLICY"


def passive(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment with passive waiting; a policy that the user has set stays.

    >>> passive({"HOME": "/home/me"})
    {'OMP_WAIT_POLICY': 'PASSIVE', 'HOME': '/home/me'}
    >>> passive({"OMP_WAIT_POLICY": "ACTIVE"})
    {'OMP_WAIT_POLICY': 'ACTIVE'}
    """
    return {POLICY: "PASSIVE", **environment}


@contextlib.contextmanager
def environment_for_children(**more: str) -> Iterator[None]:
    """Sets variables for the processes that are started inside the block, passive waiting among them.

    After the block this process's own environment is as it was before.

    Args:
        more: other variables, such as ``TQDM_DISABLE="1"``.
    """
    wanted = {POLICY: passive()[POLICY], **more}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
