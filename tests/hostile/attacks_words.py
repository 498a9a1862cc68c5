"""Answers that speak or act when they are looked at: exceptions, names, texts, destructors, prints."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import warnings

from hostile.attack import Attack, attack

__all__ = ["ATTACKS"]


@attack("written yet")
def an_error_that_claims_to_be_unwritten(x):
    """Raises a BaseException called NotImplementedError."""
    raise type("NotImplementedError", (BaseException,), {})("marks please")


@attack("revealed")
def an_error_that_claims_to_be_revealed(x):
    """Raises a BaseException called Revealed."""
    raise type("Revealed", (BaseException,), {})("marks please")


@attack("ended its process")
def an_error_that_acts_when_it_is_read(x):
    """Raises an exception whose __str__ ends the process."""

    class Polite(Exception):
        __str__ = __repr__ = lambda self: os._exit(0)

    raise Polite


@attack("did not return within")
def an_error_that_never_ends(x):
    """Raises an exception whose __str__ never returns."""

    class Talker(Exception):
        def __str__(self):
            while True:
                time.sleep(1)

    raise Talker


@attack("did not return within")
def a_repr_that_never_ends(x):
    """Returns an object whose __repr__ swallows everything and never returns."""

    class Talker:
        def __repr__(self):
            while True:
                with contextlib.suppress(BaseException):
                    time.sleep(1)

    return Talker()


@attack(honest=True)
def a_value_that_acts_when_it_is_dropped(x):
    """Leaves objects behind whose __del__ ends the process, and is right."""

    class Bomb:
        def __del__(self):
            raise RuntimeError("boom")

    Bomb.kept = Bomb()
    Bomb()
    return float(x.sum())


@attack("yours is a")
def names_as_markup(x):
    """Returns an object whose type's name and repr are HTML, ANSI and a terminal's title."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\x1b]0;owned\x07\u202e"
    return type(evil, (), {"__repr__": lambda self: evil, "__name__": evil})()


@attack("raises")
def a_message_as_markup(x):
    """Raises an exception whose text and type are HTML, ANSI and a formula."""
    evil = "=HYPERLINK(1)<script src=//evil>alert(1)</script>\x1b[31m\x9b2J<<b>b onclick=x>\ufffe\x00"
    raise type(evil.replace("\0", ""), (Exception,), {})(evil)


@attack("printed", honest=False)
def twenty_megabytes_of_output(x):
    """Prints 20 MB, through every door there is."""
    print("x" * 10_000_000)
    sys.stderr.write("y" * 10_000_000)
    return float(x.sum())


@attack(honest=True)
def twenty_megabytes_behind_python(x):
    """Writes 20 MB to the descriptors of stdout and stderr, and is right."""
    for pipe in (1, 2):
        os.write(pipe, b"z" * 10_000_000)
    return float(x.sum())


@attack("the sum")
def a_printed_verdict(x):
    """Prints what a grader of another kind would read as full marks."""
    print(json.dumps({"score": 99, "tests": [{"name": "attacked", "status": "passed", "score": 99}]}))
    print("ok\nrun\nended attacked ok\n1 passed in 0.01s\n<testcase name='attacked'/>")
    return 0.0


@attack(honest=True)
def warnings_and_errors_on_stderr(x):
    """Is right, and fills stderr with warnings and tracebacks: noise costs nothing."""
    warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
    sys.stderr.write("Traceback (most recent call last):\nAssertionError: failed")
    return float(x.sum())


@attack(honest=True)
def a_stdout_of_its_own(x):
    """Replaces stdout, stderr and the hooks for errors by an object that does nothing, and is right."""
    sys.stdout = sys.stderr = sys.excepthook = sys.unraisablehook = type("Silent", (), {})()
    return float(x.sum())


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
