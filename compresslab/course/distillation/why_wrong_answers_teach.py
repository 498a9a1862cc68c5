"""Why the probabilities of the wrong classes help a student: what a label leaves out."""

from __future__ import annotations

from compresslab.checks.exercise import Hint
from compresslab.checks.questions import question

__all__ = ["EXERCISE"]

EXERCISE = question(
    name="why_wrong_answers_teach",
    asks="A teacher gives a shirt 0.7 for shirt, 0.2 for coat, 0.0001 for sneaker: why do the probabilities "
    "of the wrong classes help a student?",
    key="b",
    choices={
        "a": (
            "The teacher is nearly always right, and so its probabilities are truer than the labels.",
            "for (a) to be true, the help would have to come from corrected labels. But the teacher learned "
            "from these labels, and on most training images it names the very class that they name; what it "
            "adds stands in the other places",
        ),
        "b": (
            "They say which classes this image resembles, and how much: more about the same image than its "
            "one label can say.",
            "",
        ),
        "c": (
            "They make the loss smaller, so that the training ends sooner.",
            "a loss is smaller for many reasons, and none of them teaches: halve it and every gradient is "
            "halved, the best student stays the same. And against a soft target the cross-entropy never "
            "reaches 0, as it can against a label",
        ),
        "d": (
            "They are noise, and noise keeps the student from learning the training images by heart.",
            "for (d) to be true, any smoothing of the labels would do as well. Deal out the same wrong "
            "probabilities among the wrong classes by chance: the noise is as large, and what the teacher "
            "knew about coats and shirts is gone",
        ),
        "e": (
            "They keep the student from ever being sure, and whoever doubts makes fewer errors.",
            "doubt alone moves no image to another class: divide all logits of a trained network by 4, and "
            "it is less sure of everything and makes the very same errors. It matters where the doubt "
            "lies",
        ),
    },
    hints=(
        Hint(
            "several of them sound right",
            "Ask of each whether it would still hold if the teacher's wrong probabilities were shuffled "
            "among the wrong classes. Would the student still learn as much?",
        ),
        Hint(
            "I do not see what a label leaves out",
            "Two shirts, one nearly a coat, the other nearly a T-shirt, have the same label. How do the two "
            "rows of the teacher differ?",
        ),
        Hint(
            "I hesitate between two",
            "What the student gets is not a better answer nor a weaker one, it is m___ about the s___ image.",
        ),
    ),
    points=1,
    minutes=3,
    difficulty=2,
)
