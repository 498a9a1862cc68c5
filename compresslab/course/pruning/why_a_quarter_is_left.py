"""How many parameters are left when half of the channels are really gone: each layer has two ends."""

from __future__ import annotations

from compresslab.checks.exercise import Hint
from compresslab.checks.questions import question

__all__ = ["EXERCISE"]

EXERCISE = question(
    name="why_a_quarter_is_left",
    asks="Half of the channels of every layer are really removed: how many of the network's parameters are "
    "left?",
    key="c",
    choices={
        "a": (
            "All of them: a channel that is removed is a channel of zeros, and zeros are stored too.",
            "that is what a mask does, and for (a) to be true the shapes would have to stay. Compare "
            "weight.shape before and after: the filters are gone from the tensor, and so is what the next "
            "layer did with their outputs",
        ),
        "b": (
            "About half: a layer with half as many filters has half as many weights.",
            "each layer loses half of its filters, and for (b) to be true that would have to be all. Look "
            "at the filters that stay: they read the outputs of the layer before, which is half as wide now, "
            "so each of them loses half of its kernels as well",
        ),
        "c": (
            "About a quarter: a weight joins an input channel to an output channel, and goes when either "
            "of the two is removed.",
            "",
        ),
        "d": (
            "About an eighth: the layer's input, its output and its kernels are halved.",
            "two halvings are right; for (d) to be true, each kernel that stays would have to shrink as "
            "well. Look at the last two numbers of weight.shape: they are 3 and 3 as before, for a channel "
            "has no part in a kernel's height or width",
        ),
        "e": (
            "About three quarters: a shortcut adds its input to the output, so every second layer has "
            "to keep its width.",
            "for (e) to be true, a shortcut would forbid removing; it only says what goes together. Remove "
            "the same channels from both ends of the sum, and from all that writes to it or reads it, and "
            "every layer is half as wide",
        ),
        "f": (
            "It can't be said beforehand: it hangs on which channels score lowest.",
            "which channels go decides about the accuracy; for (f) to be true, two filters of one layer "
            "would have to differ in size. Each has as many weights as any other: the shapes give the count",
        ),
    },
    hints=(
        Hint(
            "several of them sound right",
            "Take one layer from the middle, 64 channels in and 64 out, kernels of 3 × 3, and write down the "
            "shape of its weight before and after.",
        ),
        Hint(
            "I halved one number of the shape and am not sure about the others",
            "A convolution has out · in · h · w weights. The layer's own filters are out; in is the number "
            "of channels of the layer before. Which of the four numbers are halved?",
        ),
        Hint(
            "I want to see it as numbers",
            "64 · 64 · 3 · 3 = 36,864 weights before; 32 · ____ · 3 · 3 after. Only layers with one end that "
            "stays as it was, the images' channel or the ten classes, keep half.",
        ),
    ),
    points=1,
    minutes=3,
    difficulty=1,
    bonus=True,
)
