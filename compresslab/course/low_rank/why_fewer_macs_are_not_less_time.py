"""Why the time of a layer falls less than its multiplications: they are not all it does.

Measured by the authors themselves: Kim et al. 2015, arXiv:1511.06530 (Tucker-2); Lebedev et al. 2014,
arXiv:1412.6553 (CP).
"""

from __future__ import annotations

from compresslab.checks.exercise import Hint
from compresslab.checks.questions import question

__all__ = ["EXERCISE"]

EXERCISE = question(
    name="why_fewer_macs_are_not_less_time",
    asks="Split by CP or Tucker, a convolution needs several times fewer MACs, and yet its time falls far "
    "less: why?",
    key="c",
    choices={
        "a": (
            "The MACs are counted wrong: the counter does not know thin layers and depthwise ones.",
            "for (a) to be true, a count by hand would have to come to more. Each layer has out · in / "
            "groups · kh · kw MACs for each place of its output: do it for the four layers of a CP split, "
            "and it is the counter's number, to the last MAC",
        ),
        "b": (
            "The factors hold many zeros, and PyTorch multiplies them as well.",
            "for (b) to be true, there would have to be zeros. Count them: (weight == 0).sum() finds none; "
            "the factors are small and dense, what was dropped is not in them, and the MACs are those that "
            "are left",
        ),
        "c": (
            "One layer has become three or four: each has a price of its own, for the call and the numbers "
            "that it reads and writes; and some multiply too little to keep the processor busy.",
            "",
        ),
        "d": (
            "In every call PyTorch first multiplies the factors to get the kernel back, and runs that.",
            "for (d) to be true, somebody would have to know that the layers belong together. PyTorch sees "
            "three or four convolutions, runs one after the other, and no large kernel is ever made; it "
            "would need all of the old MACs, and the counter would see them",
        ),
        "e": (
            "One image is too little to fill the processor; with more of them the time falls as far as the "
            "MACs.",
            "a call does have fixed costs, and one image pays them alone; for (e) to be true, the gap would "
            "have to close in a large batch. The times of this lab are those of 64 images at once, and it is "
            "there: each further image brings its own activations to be moved",
        ),
        "f": (
            "The weights are not fine-tuned yet; once they are, the split layer reaches the speed that its "
            "MACs promise.",
            "for (f) to be true, the values of the weights would have to matter for the time. Fine-tuning "
            "changes values, and so the accuracy; shapes and MACs stay: time a split layer with random "
            "weights, it takes as long",
        ),
    },
    hints=(
        Hint(
            "several of them sound right",
            "Ask of each what you would have to see if it were true, and which layer or which count would "
            "show it. What else does a layer do, beside multiplying?",
        ),
        Hint(
            "I do not see what grows when the MACs fall",
            "A layer reads its input (channels · height · width numbers) and writes its output. Follow an "
            "image through 1 × 1, kh × 1, 1 × kw, 1 × 1 and count how often something is read and written.",
        ),
        Hint(
            "I want to see it as numbers",
            "A 3 × 3 convolution from 64 to 64 channels makes 64 · 9 = 576 multiplications for each number "
            "that it writes; a depthwise one of 3 × 1 makes ____. Both have to write it.",
        ),
    ),
    points=1,
    minutes=3,
    difficulty=2,
)
