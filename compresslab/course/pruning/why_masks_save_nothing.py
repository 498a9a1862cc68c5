"""Why a mask makes neither the file smaller nor the network faster, and what people believe instead.

The wrong answers are those of issue threads that come again and again: pytorch/pytorch#32928,
pytorch/tutorials#905, microsoft/nni#3273, VainF/Torch-Pruning#149.
"""

from __future__ import annotations

from compresslab.checks.exercise import Hint
from compresslab.checks.questions import question

__all__ = ["EXERCISE"]

EXERCISE = question(
    name="why_masks_save_nothing",
    asks="A mask sets 90 % of a network's weights to zero, and its file is as long and its answers take as "
    "long as before: why?",
    key="b",
    choices={
        "a": (
            "A file leaves out zeros that lie side by side, and a processor skips them; a mask scatters "
            "them, and then neither can.",
            "for (a) to be true, zeros side by side would have to pay. Save torch.zeros(1000) and "
            "torch.randn(1000): two files of the same size, and a product with the one takes as long as with "
            "the other",
        ),
        "b": (
            "A mask changes values, not shapes: as many numbers are stored, and the same products of them "
            "are computed.",
            "",
        ),
        "c": (
            "PyTorch runs the layers as they stand; an engine that compiles the network finds the zeros and "
            "leaves them out.",
            "for (c) to be true, the engine would have to write a program for these very weights. It chooses "
            "its programs by shape and type, and these are as before: export both networks to ONNX, and the "
            "files are as long as each other and take as long to run",
        ),
        "d": (
            "The gain is in training: a dead weight gets no gradient, so every step of it is cheaper.",
            "for (d) to be true, backward() would have to know the mask. It computes the whole gradient, for "
            "dead weights too, as masked_step will show you; what is thrown away was paid for, and the mask "
            "is one multiplication more",
        ),
        "e": (
            "The batch was too small: with one image the fixed costs of a call hide the gain.",
            "for (e) to be true, the two networks would have to part as the batch grows. Time 1 and 64 "
            "images with speedup(): each further image brings as many multiplications to the one as to "
            "the other",
        ),
        "f": (
            "torch.nn.utils.prune keeps weight_orig beside weight_mask; after prune.remove(…) the file "
            "shrinks to a tenth.",
            "half of it is true: the two together make the file twice as long, and prune.remove takes that "
            "back. For (f) to be true it would have to take more. Save once again afterwards: weight has its "
            "old shape, and the file its old length",
        ),
    },
    hints=(
        Hint(
            "several of them sound right",
            "Ask of each what you would have to see if it were true: in another file, with other numbers, "
            "with more images. Then try it on one layer.",
        ),
        Hint(
            "I do not see what the mask leaves as it was",
            "A layer's weight has out · in numbers of 4 bytes, and takes out · in multiplications for each "
            "input. Print weight.shape and weight.numel() before and after the mask.",
        ),
        Hint(
            "I hesitate between two",
            "Whoever wants to win something must leave the zeros out: in a file that says which are left, or "
            "by whole channels, so that the s_____ of the weight is another. A mask does neither.",
        ),
    ),
    points=1,
    minutes=3,
    difficulty=1,
)
