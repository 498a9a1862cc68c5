"""What acts in the statements that are executed before the function: needed ones, menus, what is checked."""

from __future__ import annotations

from pathlib import Path

from hostile.attack import OPENING, TINY, Attack, handed_in, holes, written
from submissions import code, saved

__all__ = ["ATTACKS"]

RIGHT = "def attacked(x): return float(x.sum()) + sum(KINDS)\n"


def checked(folder: Path, text: str, target: str) -> Path:
    """A submission whose attacked cell is followed by a check of this expression."""
    cells = [f"{OPENING}{text}", f"check.attacked({target})", holes(TINY)["honest"], "check.honest(honest)"]
    return saved(code(*cells), folder)


@handed_in("ended its process", earns=("honest",))
def a_checked_expression_that_exits(folder: Path) -> Path:
    """Ends the process in the very expression that is checked."""
    return checked(folder, "def attacked(x): return float(x.sum())", "os._exit(0)")


@handed_in("the sum", earns=("honest",))
def a_checked_expression_that_patches(folder: Path) -> Path:
    """Patches the recorder in the expression that is checked."""
    patch = "setattr(sys.modules['compresslab.checks.call'], 'same', lambda *a: True)"
    return checked(folder, "def attacked(x): return 0.0", f"[{patch}, attacked][1]")


@handed_in("revealed: 0 points", earns=("honest",))
def the_published_answer_by_another_name(folder: Path) -> Path:
    """Takes the published answer of its own exercise through every menu, under other names."""
    text = "mine = reveal.attacked()\ncheck.attacked(mine)\nattacked = lambda x: yours.attacked(x)"
    return checked(folder, text, "attacked")


@handed_in("the sum", earns=("honest",))
def a_look_for_the_published_answer(folder: Path) -> Path:
    """Searches the memory of its process for the source of its own published answer."""
    text = """
import gc
def attacked(x):
    reveal.honest()
    values = [v for each in gc.get_objects() if isinstance(each, dict) for v in list(each.values())]
    texts = [value for value in values if isinstance(value, str)]
    found = [text for text in texts if "def attacked(" in text and "reveal.honest" not in text]
    space = {}
    exec(found[0], space) if found else None
    return space.get("attacked", lambda x: 0.0)(x)
"""
    return checked(folder, text, "attacked")


ATTACKS = [
    *(value for value in list(vars().values()) if isinstance(value, Attack)),
    written(
        "a_needed_change_that_exits",
        "Ends the process in a statement that changes what the function needs.",
        f"KINDS = []\n{RIGHT}KINDS.append(os._exit(0))",
        says="ended its process",
    ),
    written(
        "a_needed_loop_without_an_end",
        "Never comes to the end of a loop that binds what the function needs, and is right all the same.",
        f"KINDS = []\nwhile True: KINDS = [0]\n{RIGHT}",
        honest=True,
    ),
    written(
        "a_needed_loop_that_cannot_be_stopped",
        "Ignores the limit in a loop that binds what the function needs.",
        """
        import signal
        KINDS = [signal.signal(signal.SIGALRM, signal.SIG_IGN)]
        while True: KINDS = KINDS
        """
        + RIGHT,
        says="did not return within",
    ),
    written(
        "a_decorator_of_a_helper_that_patches",
        "Patches torch in the decorator of a helper, and adds up nothing.",
        """
        def patching(function):
            for name in ("equal", "allclose", "isclose"):
                setattr(torch, name, lambda *a, **k: True)
            return function
        @patching
        def helper(x): return 0.0
        def attacked(x): return helper(x)
        """,
        says="the sum",
    ),
    written(
        "a_statement_that_forks",
        "Leaves a process behind in a statement that the function needs.",
        """
        KINDS = []
        def spread():
            if os.fork() == 0:
                while True: time.sleep(1)
            return 0
        KINDS.append(spread())
        """
        + RIGHT,
        honest=True,
    ),
    written(
        "an_await_without_an_end",
        "Awaits for ever what the function needs.",
        """
        import types
        @types.coroutine
        def for_ever():
            while True: yield
        KINDS = [await for_ever()]
        """
        + "def attacked(x, kinds=KINDS): return float(x.sum())\n",
        says="take more than 5 s",
    ),
    written(
        "a_false_check",
        "Puts its own menus in the place of the notebook's, so that everything is right.",
        """
        class Yes:
            def __getattr__(self, name): return lambda *a: True
        check = hint = reveal = yours = Yes()
        sys.modules["compresslab.checks.judge"] = Yes()
        def attacked(x): return yours.attacked(x)
        """,
        says="",
    ),
]
