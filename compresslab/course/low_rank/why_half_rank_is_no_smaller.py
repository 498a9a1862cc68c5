"""Why a layer split at half of its rank is as large as before: two factors, each with one long side left.

The belief that factorising always pays is that of tensorly/torch#35.
"""

from __future__ import annotations

from compresslab.checks.exercise import Hint
from compresslab.checks.questions import question

__all__ = ["EXERCISE"]

EXERCISE = question(
    name="why_half_rank_is_no_smaller",
    asks="A linear layer with n inputs and n outputs becomes two layers, split at rank n / 2: how many "
    "weights do the two have together?",
    key="e",
    choices={
        "a": (
            "Half as many: half of the rank is half of the weights.",
            "that is what one of the two has, n/2 · n, and for (a) to be true the other would be for "
            "nothing. Count both with n = 8: from 8 inputs to 4, and from 4 to 8 outputs",
        ),
        "b": (
            "A quarter: both sides of the matrix are halved.",
            "for (b) to be true, the layer would have to take n / 2 inputs and give n / 2 outputs. It takes "
            "n and gives n, as before: it is narrow only in the middle, and each factor keeps one long side",
        ),
        "c": (
            "More than before: beside the two factors, the singular values in the middle are stored.",
            "for (c) to be true, they would need a place of their own. They are numbers that multiply rows "
            "or columns: each factor takes the square root of them, and keeps its shape. Print the shapes of "
            "what your truncated_svd returns: there are two",
        ),
        "d": (
            "It hangs on the spectrum: the faster the singular values fall, the fewer.",
            "the spectrum says what the answers lose, and for (d) to be true it would have to change shapes. "
            "Split a random matrix and a trained one at the same rank: the factors are as large",
        ),
        "e": (
            "Exactly as many: each of the two has n · n / 2, and it takes less than half of the rank to win "
            "anything.",
            "",
        ),
        "f": (
            "As many while it runs, when the two are multiplied with each other again; in the file, half.",
            "for (f) to be true, somebody would have to multiply the factors, and nobody does: the input "
            "goes through the one, and what comes out through the other. The file holds both: save them, and "
            "compare the bytes",
        ),
    },
    hints=(
        Hint(
            "several of them sound right",
            "Draw the layer as one square, and the two new ones as rectangles beside it. How long are the "
            "sides of each?",
        ),
        Hint(
            "I have the shapes and want a count",
            "At rank r the first factor is (r, n) and the second (n, r): r · n + n · r weights together. The "
            "square has n · n.",
        ),
        Hint(
            "I want to see it as numbers",
            "n = 100, r = 50: before, 100 · 100 = 10,000 weights; after, 50 · 100 + 100 · 50 = ______.",
        ),
    ),
    points=1,
    minutes=3,
    difficulty=1,
    bonus=True,
)
