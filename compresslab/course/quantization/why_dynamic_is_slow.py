"""Why dynamic int8 made one network faster and the other slower: look at the steps that the engine runs."""

from __future__ import annotations

from compresslab.checks.exercise import Hint
from compresslab.checks.questions import question

__all__ = ["EXERCISE"]

EXERCISE = question(
    name="why_dynamic_is_slow",
    asks="Dynamic int8 made the wide MLP much faster and the convolutional network slower than float32: why?",
    key="c",
    choices={
        "a": (
            "This processor multiplies bytes more slowly than floats; only the smaller file is a gain.",
            "for (a) to be true, static int8 would have to be slow too, for it multiplies the same bytes. "
            "Time it: the static file of the same network is faster than float32",
        ),
        "b": (
            "The ranges are looked for anew at every call, and quantizing the activations takes most of "
            "the time.",
            "it is the usual explanation, and for (b) to be true DynamicQuantizeLinear would have to take "
            "most of the time. Let the engine profile itself (SessionOptions.enable_profiling) and add up: "
            "that step is a small part, and ConvInteger alone takes about as long as all of float32, or "
            "longer",
        ),
        "c": (
            "The engine has one fast fused step for a dynamic matrix product; a dynamic convolution runs "
            "through a general kernel to 32-bit sums, and further passes turn these into floats.",
            "",
        ),
        "d": (
            "The weights are turned back into floats at every call, and the convolutional network has many.",
            "for (d) to be true, the MLP would have to suffer more, it has far more weights; and among the "
            "steps there would be a DequantizeLinear for each weight. Look at node_kinds(): ConvInteger "
            "takes the bytes",
        ),
        "e": (
            "The batch was too small: with more images a call the fixed costs of quantizing disappear.",
            "for (e) to be true, dynamic would have to overtake float32 as the batch grows. Time 1 and 64 "
            "images: every further image brings as many activations and as many products of its own",
        ),
    },
    hints=(
        Hint(
            "several of them sound right",
            "Ask of each what static int8 would have to do, or the MLP, if it were true. Both were "
            "measured above.",
        ),
        Hint(
            "I do not see what differs between the three files",
            "Call node_kinds() on each: the steps that the engine really runs, after its own rewriting. "
            "How many steps does one convolution take in the static file, and how many in the dynamic one?",
        ),
        Hint(
            "I hesitate between two",
            "Profile the dynamic network: is most of the time in D______QuantizeLinear or in C______Integer? "
            "Only one answer says so.",
        ),
    ),
    points=1,
    minutes=4,
    difficulty=2,
    bonus=True,
)
