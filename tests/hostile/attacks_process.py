"""Answers that tamper with the process they run in: libraries, the grader's own modules, frames, memory."""

# ruff: noqa: E731 (a lambda is the shortest way to patch)

from __future__ import annotations

import atexit
import builtins
import contextlib
import ctypes
import gc
import importlib
import inspect
import json
import math
import os
import signal
import sys
import threading
import time
import types

import numpy as np
import torch
from hostile.attack import Attack, attack

__all__ = ["ATTACKS"]

NOTHING = "ValueError: found nothing"


@attack("the sum")
def patched_torch(x):
    """Makes every comparison of torch say yes."""
    yes = lambda *given, **named: torch.tensor(True)
    for name in ("equal", "allclose", "isclose", "eq", "as_tensor", "from_numpy", "is_tensor", "abs"):
        setattr(torch, name, yes)
    for name in ("__eq__", "__le__", "item", "all", "any", "abs", "tolist", "__bool__"):
        setattr(torch.Tensor, name, yes)
    torch.testing.assert_close = yes
    return 0.0


@attack("can't be read")
def patched_numpy(x):
    """Makes numpy see and save what is not there."""
    yes = lambda *given, **named: np.ones(())
    for name in ("isnan", "allclose", "array_equal", "asarray", "array", "savez", "save", "frombuffer"):
        setattr(np, name, yes)
    return 0.0


@attack("ended its process")
def patched_builtins(x):
    """Replaces all, any, abs, len, isinstance, type and more for everybody."""
    for name in ("all", "any", "abs", "min", "max", "sum", "float", "round"):
        setattr(builtins, name, lambda *given, **named: 1)
    builtins.isinstance = builtins.issubclass = builtins.hasattr = lambda *given: True
    return 0.0


@attack("ended its process")
def patched_readers(x):
    """Replaces json, open, inspect and the importer, which a grader may use after the answer."""
    yes = lambda *given, **named: '{"passed": true}'
    json.dumps = json.loads = builtins.open = inspect.getsource = importlib.import_module = yes
    builtins.__import__ = lambda *given, **named: types.SimpleNamespace()
    return 0.0


@attack("raises")
def patched_modules_of_ours(x):
    """Replaces every function of every compresslab module that is loaded by one that says yes."""
    for name, module in list(sys.modules.items()):
        if name.startswith("compresslab") and "worker" not in name and name != "compresslab.checks.call":
            for part, value in list(vars(module).items()):
                if inspect.isfunction(value) and part not in (
                    "describe",
                    "_describe",
                    "to_bytes",
                    "_flatten",
                ):
                    setattr(module, part, lambda *given, **named: True)
    return 0.0


@attack("the sum")
def a_blind_watchdog(x):
    """Patches what watches the arguments, so that a changed input is not noticed, and guesses."""
    running = sys.modules["compresslab.checks.call"]
    running.same = lambda *given: True
    running._Watched.changed = property(lambda self: "", lambda self, value: None)
    x.zero_()
    return 0.0


@attack("changes its input")
def a_record_that_is_always_right(x):
    """Replaces the recorder by one that writes an object which equals everything."""
    recording = sys.modules["compresslab.checks.record"]
    running = sys.modules["compresslab.checks.call"]
    Always = type("Always", (float,), {"__eq__": lambda *given: True, "__hash__": None})
    fake = recording.Recorded("float", "0.0", "float", np.asarray(Always(0.0)))
    running.describe = recording.describe = lambda *given: fake
    return Always(0.0)


@attack("ended its process")
def a_run_that_never_was(x):
    """Replaces the runner's attempts by ones without a case, so that there is nothing to judge."""
    running = sys.modules["compresslab.checks.call"]
    running.Run = lambda attempts, *more: types.SimpleNamespace(
        attempts=(), printed="", characters=0, stopped=""
    )
    return 0.0


@attack("ended its process")
def modules_that_are_gone(x):
    """Removes torch, numpy and our own modules from sys.modules and empties the ones that stay."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("torch", "numpy", "json", "zipfile", "compresslab"):
            sys.modules[name] = None
    raise ValueError("spoiled")


@attack(NOTHING)
def the_callers_frames(x):
    """Climbs the stack for a seed, a judge, an expected value or another student's work."""
    found, frame = set(), sys._getframe()
    while frame := frame.f_back:
        names = {*frame.f_locals, *frame.f_globals}
        found |= {n for n in names if n.lower().strip("_") in ("seed", "key", "judge", "wanted", "mistakes")}
    raise ValueError(f"found {sorted(found) or 'nothing'}")


@attack(NOTHING)
def every_living_object(x):
    """Searches all objects in memory for a judge, a bundle, a lab or a right answer."""
    found = set()
    for thing in gc.get_objects():
        with contextlib.suppress(Exception):
            if type(thing).__name__ in ("Bundle", "Lab", "Score", "Submission", "Mistake"):
                found.add(type(thing).__name__)
            if isinstance(thing, types.FunctionType) and thing.__name__ in ("judge", "by_method", "by_loop"):
                found.add(thing.__name__)
    raise ValueError(f"found {sorted(found) or 'nothing'}")


@attack("ended its process")
def os_exit(x):
    """Ends the process with the code of success."""
    os._exit(0)


@attack("ended its process")
def a_crash(x):
    """Reads the address 0."""
    return ctypes.string_at(0)


@attack("sys.exit()")
def a_polite_exit(x):
    """Leaves by SystemExit with the code of success, and something for atexit."""
    atexit.register(os._exit, 0)
    sys.exit(0)


@attack(honest=True)
def what_runs_at_exit(x):
    """Is right, and leaves an atexit handler, a finalizer and a thread that would write once more."""
    atexit.register(os.write, 3, b"late words")
    threading.Thread(target=lambda: (time.sleep(0.3), os.write(3, b"late words")), daemon=True).start()
    return float(x.sum())


@attack(honest=True)
def a_tracer(x):
    """Is right, and traces, profiles and signals all that comes after it."""
    sys.settrace(lambda *given: None)
    sys.setprofile(lambda *given: None)
    signal.signal(signal.SIGTERM, lambda *given: os._exit(0))
    return float(x.sum())


@attack("NaN")
def a_tracer_that_rewrites(x):
    """Traces the probe and the recorder and overwrites their local values."""

    def trace(frame, event, value):
        for name in ("value", "values", "result", "plain"):
            if name in frame.f_locals:
                with contextlib.suppress(Exception):
                    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
        return trace

    sys.settrace(trace)
    sys._getframe(1).f_trace = trace
    return math.nan


@attack("the sum", "ended its process")  # Python 3.13 does not survive it
def rewritten_memory(x):
    """Overwrites the bytes of small integers, of True and of float constants, so that 0 may be 1."""
    with contextlib.suppress(BaseException):
        ctypes.c_long.from_address(id(0) + 24).value = 1
        ctypes.c_double.from_address(id(0.5) + 16).value = 0.0
    return 0.0


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
