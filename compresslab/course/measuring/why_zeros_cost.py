"""Why 90 % zeros made neither the file smaller nor the network faster."""

from __future__ import annotations

from compresslab.checks.exercise import Hint
from compresslab.checks.questions import question

__all__ = ["EXERCISE"]

EXERCISE = question(
    name="why_zeros_cost",
    asks="90 % of the weights are zero, the file is as large and the network as fast as before: why?",
    key="d",
    choices={
        "a": (
            "float32 keeps 4 bytes for each weight; stored as float16 or int8, the zeros would take no room.",
            "float16 halves the file of any tensor; for (a) to be true, zeros would have to shrink more than "
            "other numbers do. Save torch.zeros(1000).half() and torch.randn(1000).half(): "
            "two files of the same size",
        ),
        "b": (
            "The processor skips the zeros; the clock is too coarse and the network too small to show it.",
            "for (b) to be true, the interval would have to leave 1 with more pairs or larger layers, "
            "and the file would have to shrink as well. Time a 4096 × 4096 layer with and without its zeros: "
            "the kernel multiplies whole blocks and looks at no entry",
        ),
        "c": (
            "90 % is not enough yet: both file and time begin to fall once 99 % of the weights are zero.",
            "for (c) to be true, bytes or time would have to depend on how many entries are zero. "
            "Set every single weight to zero and save again: the file stays as long, to the byte; "
            "a threshold matters only after you change the format",
        ),
        "d": (
            "A dense tensor stores each of its entries, and a dense kernel multiplies each one, zero or not.",
            "",
        ),
        "e": (
            "The network was not fine-tuned after the zeros came; training removes dead weights for good.",
            "fine-tuning changes the values of weights and wins back accuracy; for (e) to be true it would "
            "have to change their number. Compare weight.numel() before and after an epoch: it is the same",
        ),
    },
    hints=(
        Hint(
            "several of them sound right",
            "Ask of each: what would I have to see if it were true? Then try it on one small tensor.",
        ),
        Hint(
            "I do not see what the file holds",
            "A weight of shape (out, in) is stored as out · in numbers of 4 bytes each, and a layer does "
            "out · in multiplications an input. Which of these terms depends on the values?",
        ),
        Hint(
            "I hesitate between two",
            "To win anything, the zeros must be left out: by another f______ (values and their places) "
            "or another s______ (whole rows or channels really removed). Which answer says that they "
            "are still there?",
        ),
    ),
)
