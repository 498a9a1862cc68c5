"""Notebooks made of pieces, as students write them: what stands at the check depends on what stands where.

Each piece is a cell of one feature of Python. All of them work on a few names (``A``, ``L``, ``D``, ``h``,
``cfg``), and the function that is checked adds up what these names hold: it is right while they hold nothing,
and wrong otherwise. So a slice that leaves out one statement too many, or takes the wrong one of two, shows
in the verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import strategies as st

# Bound first, so that a piece that changes a name finds it.
OPENING = (
    "import torch, functools, math",
    "A, L, M, D = 0, [], [], {}",
    "class Settings:\n    bias = 0\ncfg = Settings()",
    "def h():\n    return 0",
    "def second(x):\n    return float(x.sum())",
)
RIGHT = "float(x.sum()) + A + sum(L) + sum(D.values()) + h() + cfg.bias + (e > 0)"

PIECES: dict[str, tuple[str, ...]] = {
    "a scratch cell": (
        "n = first(torch.ones(2))\nprint(n)",
        "for n in range(3):\n    print(n)",
        "len(L)",
        "results = {name: len(name) for name in ('a', 'b')}",
        "1 / 0",
    ),
    "a value": (
        "A = {v}",
        "A, B = {v}, 2",
        "A: int = {v}",
        "B = (A := {v})",
        "A = A * {v}",
        "cfg = Settings()",
    ),
    "an augmented assignment": ("A += {v}", "L += [{v}]", "cfg.bias -= {v}"),
    "a change of an object": (
        "L.append({v})",
        "D['k'] = {v}",
        "del L[:]",
        "cfg.bias = {v}",
        "L[:] = [{v}]",
        "D.update(k={v})",
        "last = L.pop() if L else 0",
        "Settings.bias = {v}",
        "class Mine(Settings):\n    pass\ncfg = Mine()",
    ),
    "another name of an object": (
        "M = L",
        "M.append({v})",
        "box = [D]",
        "box = [D]\nbox[0]['k'] = {v}",
        "same = cfg\nsame.bias = {v}",
        "L = M",
    ),
    "a compound statement": (
        "for i in range(2):\n    A = i * {v}",
        "if {v}:\n    L.append(1)\nelse:\n    A = 0",
        "try:\n    A = [][0]\nexcept IndexError:\n    A = {v}",
        "with torch.no_grad():\n    A = {v}",
        "while len(L) < {v}:\n    L.append(1)",
        "for part in (L, M):\n    part.append({v})",
    ),
    "a helper": (
        "def h():\n    return {v}",
        "h = lambda: {v}",
        "def h(value=A):\n    return value",
        "def h():\n    return A",
        "old = h\ndef h():\n    return old() + {v}",
        "h = functools.partial(max, {v}, 0)",
    ),
    "a function with an effect": (
        "def setup():\n    global A\n    A = {v}",
        "def setup():\n    L.append({v})",
        "setup()",
        "run = [setup() for _ in range(2)]",
        "def fill(parts):\n    parts.append({v})",
        "fill(L)",
        "done = fill(M)",
        "def keep(function):\n    L.append({v})\n    return function\n@keep\ndef idle():\n    return 3",
    ),
    "a shadowed name": (
        "sum = max",
        "del sum",
        "float = int",
        "def sum(values):\n    return {v}",
        "print = None",
    ),
    "a star import": ("from math import *", "e = {v}", "tau = {v}"),
    "a wrapper": (
        "first = functools.lru_cache(first)",
        "def twice(function):\n    return lambda x: function(x) + {v}\nfirst = twice(first)",
        "mine = first",
        "first = mine",
        "def counted(function):\n    @functools.wraps(function)\n    def inner(x):\n"
        "        return function(x)\n    return inner\n@counted\ndef first(x):\n    return {right}",
    ),
    "the function again": (
        "def first(x):\n    return {right}",
        "def first(x):\n    return float(x.sum()) + {v}",
        "def first(x, bias=A):\n    return float(x.sum()) + bias",
        "first = lambda x: {right}",
    ),
    "another answer": (
        "check.second(second)",
        "def first(x):\n    return yours.second(x) + A",
        "def second(x):\n    return float(x.sum()) + {v}",
        "second = reveal.second()",
        "first = reveal.first()",
    ),
    "IPython": (
        "%time A = {v}",
        "%pwd\nA = {v}",
        "get_ipython()",
        "display(L)",
        "async def given():\n    return {v}",
        "A = await given()",
        "!true \\\n  x\nA = {v}",
    ),
    "a check": ("check.first(first)", "check.first(mine)", "check.first(lambda x: first(x))"),
}


@st.composite
def natural_notebooks(draw: Callable[..., object]) -> tuple[list[str], Counter[str]]:
    """The cells of a notebook that checks ``first``, and the features in it."""
    features: Counter[str] = Counter()
    cells = [*OPENING, "e = 0", "async def given():\n    return 0", "def setup():\n    pass"]
    cells += ["def fill(parts):\n    pass", f"def first(x):\n    return {RIGHT}", "mine = first"]
    chosen = draw(st.lists(st.sampled_from(sorted(PIECES)), min_size=3, max_size=9))
    for feature in chosen:
        text = draw(st.sampled_from(PIECES[feature]))
        value = draw(st.sampled_from((0, 0, 1)))
        cells.append(text.replace("{v}", str(value)).replace("{right}", RIGHT))
        features[feature] += 1
    place = draw(st.integers(len(cells) - len(chosen), len(cells)))
    cells.insert(place, draw(st.sampled_from(PIECES["a check"])))
    if draw(st.booleans()):  # two cells change places
        one, other = draw(st.integers(5, len(cells) - 1)), draw(st.integers(5, len(cells) - 1))
        cells[one], cells[other] = cells[other], cells[one]
        features["cells in another order"] += one != other
    return cells, features
