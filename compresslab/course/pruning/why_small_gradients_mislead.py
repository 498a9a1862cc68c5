"""Why a small gradient does not mean that a weight can go: it knows the slope here, not the way to zero.

Sources: LeCun, Denker and Solla 1990, "Optimal brain damage"; the first order: Molchanov et al. 2019,
arXiv:1906.10771.
"""

from __future__ import annotations

from compresslab.checks.exercise import Hint
from compresslab.checks.questions import question

__all__ = ["EXERCISE"]

EXERCISE = question(
    name="why_small_gradients_mislead",
    asks="After training the mean gradient of nearly every weight is close to 0: why does that not mean that "
    "the weights are unimportant?",
    key="e",
    choices={
        "a": (
            "It would, if the mean were taken over enough images; over a few hundred it is noise.",
            "for (a) to be true, more images would have to bring out the important weights. They bring all "
            "means nearer to 0: on the images that it was trained on, the network stands where the slopes "
            "cancel, for important weights as well",
        ),
        "b": (
            "The learning rate falls to 0 at the end of training, and the gradients become small with it.",
            "for (b) to be true, the learning rate would have to be a part of the gradient. It multiplies it "
            "afterwards, in the optimiser's step: backward() never sees it",
        ),
        "c": (
            "The training stopped too early: at its end just the important weights have large gradients.",
            "for (c) to be true, training would have to leave slopes behind. A large one is what the next "
            "step walks down, and for an important weight first of all: the longer one trains, the "
            "smaller they are",
        ),
        "d": (
            "Small gradients belong to small weights, and these are unimportant; large weights have large "
            "gradients.",
            "for (d) to be true, size and slope would have to go together. Take the loss (w - 3)² at "
            "w = 3: a large weight, a slope of 0, and without it the loss is 9",
        ),
        "e": (
            "A gradient says how fast the loss changes per unit of w, here and now; to remove w is to go "
            "all the way to 0, and there the loss may be high.",
            "",
        ),
        "f": (
            "Only the sign misleads: ranked by its magnitude |g|, a gradient does say which weights may go "
            "at little damage.",
            "for (f) to be true, the length of the way would not matter. Take two weights, 0.01 and 1, with "
            "the same |g| = 0.5: to first order their removal moves the loss by 0.005 and by 0.5, which is "
            "|w · g|",
        ),
    },
    hints=(
        Hint(
            "several of them sound right",
            "Draw a valley and put the weight at its bottom. What is the slope there? And how high is the "
            "loss where the weight is 0?",
        ),
        Hint(
            "I have the picture and want it as a formula",
            "With g the slope and h the curvature, the loss at w = 0 is about L - w · g + h · w² / 2, and L "
            "is the loss with the weight. With g = 0 the middle term is gone; what is left?",
        ),
        Hint(
            "I hesitate between two",
            "L = 50 · (w - 2)² has at w = 2 the gradient 0, and at w = 0 the loss ____. Which answer says "
            "what the gradient left out?",
        ),
    ),
    points=1,
    minutes=3,
    difficulty=2,
    bonus=True,
)
