"""Pseudo-labels with a filter: the teacher's best guess, where the teacher is sure, and no label elsewhere.

Source: Xie et al. 2019, "Self-training with Noisy Student improves ImageNet classification",
arXiv:1911.04252.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Each largest probability is 0.04 or more away from the threshold, but for the tie, which is exact.

    A sure image has low logits and an unsure one high logits: softmax does not mind, a careless filter does.
    """

    def row(best: float, classes: int) -> Tensor:
        """Logits whose largest probability is ``best``; the runner-up has most of the rest."""
        runner_up = min(0.9 * (1 - best), best - 0.04)
        others = torch.full((classes,), (1 - best - runner_up) / (classes - 2), dtype=torch.float64)
        others[:2] = torch.tensor([best, runner_up])
        return others.log()[torch.randperm(classes, generator=rng)]

    def given(threshold: float, *best: float, classes: int = 5) -> dict[str, Any]:
        moved = [p + 0.02 * float(torch.rand((), generator=rng)) for p in best]
        logits = [row(p, classes) + (6 if p < threshold else -6) for p in moved]
        return {"logits": torch.stack(logits).float(), "threshold": threshold}

    yield "sure and unsure images", given(0.7, 0.76, 0.42, 0.9, 0.62, 0.5)
    yield "all images are sure", given(0.6, 0.72, 0.66, 0.95, 0.81)
    yield "nobody is sure", given(0.9, 0.5, 0.84, 0.6, classes=3)
    yield "one image, as a sure one", given(0.5, 0.56, classes=4)
    yield "as many images as classes", given(0.8, 0.86, 0.5, 0.95)
    yield "threshold 0 keeps everybody", given(0.0, 0.4, 0.5, 0.9)
    large = torch.tensor([[900.0, 890.0, -900.0], [-800.0, -810.0, -790.0], [1000.0, 999.9, 0.0]])
    yield "logits that exp() can't hold", {"logits": large, "threshold": 0.9}
    certain = torch.tensor([[0.0, 500.0, -500.0], [400.0, 0.0, 0.0]])
    yield "a probability of exactly 1, threshold 1", {"logits": certain, "threshold": 1.0}
    turned = given(0.7, 0.8, 0.5, 0.9)["logits"]
    yield "transposed in memory", {"logits": turned.T.contiguous().T, "threshold": 0.7}
    exact = given(0.75, 0.6, 0.82, 0.95)
    yield "float64", exact | {"logits": exact["logits"].double()}


def probe(case: dict[str, Any], confident_labels: Callable[..., Any]) -> dict[str, Any]:
    return {"labels": confident_labels(case["logits"], threshold=case["threshold"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """One image after the other, in Python's own numbers."""
    images = case["logits"].double().tolist()
    labels = expect.tensor(record["labels"], shape=(len(images),), dtype=torch.int64, what="the labels")
    for image, logits in enumerate(images):
        best = 1 / sum(math.exp(z - max(logits)) for z in logits)
        wanted = logits.index(max(logits)) if best >= case["threshold"] else -1
        details = {"image": image, "best": f"{best:.3g}", "threshold": case["threshold"]}
        expect.true(
            int(labels[image]) == wanted,
            f"image {image} has the largest probability {best:.3g}, and the threshold is "
            f"{case['threshold']:g}: its label is {wanted}; yours is {int(labels[image])}",
            **details,
            yours=int(labels[image]),
            wanted=wanted,
        )


def by_where(logits: Tensor, *, threshold: float) -> Tensor:
    best, labels = logits.softmax(dim=1).max(dim=1)  # (n,) each
    return torch.where(best >= threshold, labels, -1)


def by_mask(logits: Tensor, *, threshold: float) -> Tensor:
    labels = logits.argmax(dim=1)
    unsure = 1 / (logits - logits.amax(dim=1, keepdim=True)).exp().sum(dim=1) < threshold
    labels[unsure] = -1
    return labels


def by_loop(logits: Tensor, *, threshold: float) -> Tensor:
    labels = []
    for z in logits:
        p = torch.softmax(z, dim=0).tolist()
        labels.append(p.index(max(p)) if max(p) >= threshold else -1)
    return torch.tensor(labels)


def _filtered(logits: Tensor, sure: Tensor, unlabelled: int = -1) -> Tensor:
    return torch.where(sure, logits.argmax(dim=1), unlabelled)


def _best(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1).amax(dim=1)


@mistake(
    "compares the logit with the threshold",
    says="image {image} should get {wanted} and gets {yours}: its largest probability is {best}, but you "
    "compared its logit, which means nothing alone; add 10 to all of a row and its softmax stays the same",
)
def compares_logit(logits, *, threshold):
    return _filtered(logits, logits.amax(dim=1) >= threshold)


@mistake(
    "takes sigmoid for softmax",
    says="image {image} should get {wanted} and gets {yours}: its largest probability is {best}; sigmoid "
    "judges each class as if it were alone, softmax shares one certainty among all",
)
def takes_sigmoid(logits, *, threshold):
    return _filtered(logits, logits.sigmoid().amax(dim=1) >= threshold)


@mistake(
    "compares the log-probability",
    says="image {image} should get {wanted} and gets {yours}: log_softmax gives logarithms, never above 0, "
    "which no threshold but 0 lets through; compare the probability, {best}",
)
def compares_logarithm(logits, *, threshold):
    return _filtered(logits, logits.log_softmax(dim=1).amax(dim=1) >= threshold)


@mistake(
    "takes softmax of probabilities",
    says="image {image} should get {wanted} and gets {yours}: softmax was applied twice, and the second one "
    "makes everything look unsure; its largest probability is {best}",
)
def softmax_twice(logits, *, threshold):
    return _filtered(logits, _best(logits.softmax(dim=1)) >= threshold)


@mistake(
    "takes softmax over the batch",
    says="image {image} should get {wanted} and gets {yours}: your probabilities add up to 1 over the "
    "images, dim=0; each image spreads its own over the classes, dim=1",
)
def over_the_batch(logits, *, threshold):
    best, labels = logits.softmax(dim=0).max(dim=1)
    return torch.where(best >= threshold, labels, -1)


@mistake(
    "keeps the unsure ones",
    says="image {image} should get {wanted} and gets {yours}: its largest probability is {best}, and you "
    "label those at or below the threshold {threshold}; the sure ones are at or above it",
)
def keeps_unsure(logits, *, threshold):
    return _filtered(logits, _best(logits) <= threshold)


@mistake(
    "drops an image that is just sure enough",
    says="image {image} should get {wanted} and gets {yours}: its probability is {best}, the threshold "
    "itself; that is enough: ≥, not >",
)
def strictly_above(logits, *, threshold):
    return _filtered(logits, _best(logits) > threshold)


@mistake(
    "looks at the margin",
    says="image {image} should get {wanted} and gets {yours}: its largest probability is {best}, and that "
    "alone is compared; you subtracted the second largest",
)
def margin(logits, *, threshold):
    two = logits.softmax(dim=1).topk(2, dim=1).values
    return _filtered(logits, two[:, 0] - two[:, 1] >= threshold)


@mistake(
    "keeps a share of the batch",
    says="image {image} should get {wanted} and gets {yours}: you cut at a quantile of the batch, so some "
    "are always dropped, however sure; the threshold is a probability, the same in every batch",
)
def share_of_the_batch(logits, *, threshold):
    best = _best(logits)
    return _filtered(logits, best >= best.quantile(threshold))


@mistake(
    "drops the unsure rows",
    says="you return fewer labels than there are images: then nobody knows any more which label is whose; "
    "keep a row for each image, with -1 where there is no label",
)
def drops_rows(logits, *, threshold):
    return logits.argmax(dim=1)[_best(logits) >= threshold]


@mistake(
    "labels the unsure ones 0",
    says="image {image} should get {wanted} and gets {yours}: 0 is a class like any other, so you teach the "
    "student that every doubtful image is a member of it; -1 stands for no label",
)
def zero_for_unsure(logits, *, threshold):
    return _filtered(logits, _best(logits) >= threshold, 0)


@mistake(
    "labels every image",
    says="image {image} should get {wanted} and gets {yours}: its largest probability is only {best}; a "
    "guess that the teacher itself doubts is better left out",
)
def labels_everything(logits, *, threshold):
    return logits.argmax(dim=1)


@mistake(
    "returns one-hot rows",
    says="you return a row of zeros and ones for each image; a label is one integer, the class's number, so "
    "the result is (n,) int64",
)
def one_hot(logits, *, threshold):
    sure = _best(logits) >= threshold
    return F.one_hot(logits.argmax(dim=1), logits.shape[1]) * sure[:, None]


@mistake(
    "returns the probabilities",
    says="you return how sure the teacher is, a float, and not of what: max(dim=1) gives values and indices; "
    "compare the values, return the indices",
)
def returns_probabilities(logits, *, threshold):
    best = _best(logits)
    return torch.where(best >= threshold, best, -1.0)


@mistake(
    "lets exp() overflow",
    says="image {image} should get {wanted} and gets {yours}: exp() of a large logit is infinite, inf/inf "
    "is NaN, and NaN is never ≥ anything; softmax(dim=1) subtracts the row's maximum first",
)
def overflows(logits, *, threshold):
    best = (logits.exp() / logits.exp().sum(dim=1, keepdim=True)).amax(dim=1)
    return _filtered(logits, best >= threshold)


EXERCISE = Exercise(
    name="confident_labels",
    points=2,
    minutes=8,
    difficulty=2,
    statement="confident_labels(logits, threshold=…) labels the images of which the teacher is sure, and "
    "leaves -1 at the rest.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_where, by_mask, by_loop),
    mistakes=(
        compares_logit,
        takes_sigmoid,
        compares_logarithm,
        softmax_twice,
        over_the_batch,
        keeps_unsure,
        strictly_above,
        margin,
        share_of_the_batch,
        drops_rows,
        zero_for_unsure,
        labels_everything,
        one_hot,
        returns_probabilities,
        overflows,
    ),
    hints=(
        Hint(
            "images are kept that the teacher is not sure of",
            "A logit alone says nothing. What makes the numbers of one image comparable with a threshold "
            "between 0 and 1?",
        ),
        Hint(
            "the shape is not (n,)",
            "p = logits.softmax(dim=1) is (n, classes). p.max(dim=1) gives two tensors (n,): the values and "
            "the indices. Compare the values with the threshold; every image keeps its place in the result.",
        ),
        Hint(
            "I have the mask and the labels, and do not know how to join them",
            "return torch.where(best >= threshold, labels, ____)",
        ),
    ),
)
