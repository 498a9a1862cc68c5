"""Why the soft loss is multiplied by T²: two parts of one loss have to keep their balance."""

from __future__ import annotations

from compresslab.checks.exercise import Hint
from compresslab.checks.questions import question

__all__ = ["EXERCISE"]

EXERCISE = question(
    name="why_t_squared",
    bonus=True,
    asks="Why is the soft part of the loss multiplied by T²?",
    key="d",
    choices={
        "a": (
            "It takes the softening back: loss and gradient are again those of T = 1, only with numbers "
            "that are easier to compute.",
            "for (a) to be true, T would be no setting at all: every temperature would train the same "
            "student. Compare kd_gradient at T = 1 and at T = 4: the entries differ, in their pattern too",
        ),
        "b": (
            "It gives the teacher more weight than the labels, because its targets say more about an image.",
            "for (b) to be true, a teacher at T = 1 would have to say less than one at T = 4, for there the "
            "factor is 1. How much the teacher counts is what weight is for; T² sees to it that T does not "
            "change this share by the way",
        ),
        "c": (
            "It softens the targets further: the larger the factor, the more the small probabilities show.",
            "for (c) to be true, the factor would have to change the probabilities, and it stands outside: "
            "they are computed before it multiplies anything. What softens them is the T inside the softmax",
        ),
        "d": (
            "Without it the soft part's gradients would shrink about like 1 / T², and the balance with the "
            "labels would change with every T.",
            "",
        ),
        "e": (
            "It makes up for small gradients of the whole loss; a learning rate T² times as large does the "
            "same.",
            "for (e) to be true, both parts would have to shrink with T. The labels' part has no temperature "
            "and does not: a larger learning rate enlarges it as well, and the ratio of the two stays wrong",
        ),
        "f": (
            "At a high T the divergence is so small that float32 would round it to 0.",
            "for (f) to be true, T² would have to come before the rounding, and it comes after: 0 times T² "
            "is still 0. And float32 goes down to 1e-38: compute the divergence at T = 20, it is far from "
            "that",
        ),
    },
    hints=(
        Hint(
            "several of them sound right",
            "Ask of each what would happen at T = 1, where the factor is 1, and what would happen if the "
            "loss had no labels in it.",
        ),
        Hint(
            "I do not see where a square should come from",
            "The divergence alone has the gradient (p_s - p_t) / (T · n). And what becomes of p_s - p_t "
            "itself, when T makes both distributions flat?",
        ),
        Hint(
            "I hesitate between two",
            "Print the largest entry of kd_gradient(z, v, temperature=T) / T**2, the gradient without the "
            "factor, for T = 10, 20, 40: each time T doubles, it becomes about ____ times smaller. The "
            "gradient of the labels' part does not change.",
        ),
    ),
    points=1,
    minutes=3,
    difficulty=2,
)
