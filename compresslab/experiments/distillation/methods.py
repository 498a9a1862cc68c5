"""The compared distillation methods of lab 02, and the student alone, each as one function of a setting.

    loss of an offline method = cross-entropy of the labelled images + strength · its loss over all views

KD and DKD weight the two terms as their papers do. Each method has one strength, which is not tuned: the
weight in the benchmark of Tian et al., if it has one (PKT's there is 30,000 for a mean over pairs in batches
of 64; here it is about 500 for a mean over images). Relation and feature methods are used without KD, as in
that benchmark. Only the learning rate is tuned, with the same number of tries for every method and for the
student alone.

Simplified: FitNet's hint and the labels are learned together, not in two stages; similarity is computed from
embeddings, not feature maps; attention maps are compared by the mean over positions, as in that benchmark;
Noisy Student has input noise only, one round, and unbalanced classes. Peers and early exits learn only from
labelled images, as in their papers, and do not use the others.

Source of the weights: Tian, Krishnan and Isola 2019, "Contrastive representation distillation",
arXiv:1910.10699, and its published benchmark.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.experiments.distillation.setting import Setting
from compresslab.models.residual import student as small_student
from compresslab.models.surgery import evaluating, layer_outputs
from compresslab.techniques.distillation import feature, relation
from compresslab.techniques.distillation.offline import Pupil, distill, know
from compresslab.techniques.distillation.online import Peers, peer_losses
from compresslab.techniques.distillation.response import (
    UNLABELLED,
    decoupled_loss,
    kd_loss,
    labelled_cross_entropy,
)
from compresslab.techniques.distillation.self_distillation import (
    EarlyExits,
    born_again,
    confident_labels,
    own_teacher_loss,
)
from compresslab.training.loop import accuracy, fit

__all__ = ["HINT", "LAYERS", "METHODS", "Learned", "Method", "learn_alone", "learn_together"]

HINT = ("blocks.1", "network.blocks.6")  # 7 × 7: the student's 32 channels, the teacher's 96
LAYERS = {
    "blocks.0": "network.blocks.3",
    "blocks.1": "network.blocks.6",
}  # for attention maps: the student's, the teacher's
GENERATIONS = 2  # students after the first
TEMPERATURE = 4.0
ANGLES = 64  # images per batch for which angles are computed: the benchmark's whole batch

MakeStudent = Callable[[], nn.Module]


@dataclass(frozen=True)
class Learned:
    """A trained student, and further results of the run as JSON values."""

    network: nn.Module
    details: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A distillation method.

    Attributes:
        run: (setting, make_student, strength=…, seed=…) → Learned.
        strength: the weight of its loss.
        called: the name of the strength.
        knowledge: "response", "feature" or "relation".
        strategy: "offline", "online" or "self".
    """

    run: Callable[..., Learned]
    strength: float
    called: str
    knowledge: str
    strategy: str


def learn_alone(
    setting: Setting, make: MakeStudent = small_student, *, seed: int, longer: int = 1
) -> Learned:
    """Train without a teacher on new views of the labelled images, for ``longer`` times the steps."""
    return Learned(_by_labels(setting, _fresh(make, seed), seed=seed, longer=longer))


def _fresh(make: MakeStudent, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return make()


def _by_labels(setting: Setting, model: nn.Module, *, seed: int, longer: int = 1, **more: Any) -> Any:
    """Train on the labelled images alone, for at least as many steps as the other methods."""
    epochs = longer * math.ceil(setting.passes * len(setting.views) / len(setting.labelled))
    settings = setting.training(seed) | {"epochs": epochs, "augmented": True} | more
    return fit(model, setting.labelled, setting.validation, **settings).model


def _taught(setting: Setting, pupil: Pupil, teach: Callable[..., Tensor], seed: int) -> nn.Module:
    """Return the pupil's student after its passes over the views."""
    return distill(pupil, setting.views, setting.validation, teach, **setting.training(seed)).model


def _offline(term: Callable[..., Tensor]) -> Callable[..., Learned]:
    """Return the run of a method with the loss cross-entropy + strength · term(embeddings, teacher's)."""

    def run(setting: Setting, make: MakeStudent = small_student, *, strength: float, seed: int) -> Learned:
        knowledge, labels = setting.taught, setting.views.labels

        def teach(pupil: Pupil, views: Tensor, index: Tensor) -> Tensor:
            logits, (embedding,) = layer_outputs(pupil.student, views, ["pool"])
            hard = labelled_cross_entropy(logits.float(), labels[index])
            return hard + strength * term(embedding.float(), knowledge.embeddings[index])

        return Learned(_taught(setting, Pupil(_fresh(make, seed)), teach, seed))

    return run


def _kd(setting: Setting, make: MakeStudent = small_student, *, strength: float, seed: int) -> Learned:
    knowledge, labels = setting.taught, setting.views.labels

    def teach(pupil: Pupil, views: Tensor, index: Tensor) -> Tensor:
        logits = pupil(views).float()
        return kd_loss(logits, knowledge.logits[index], labels[index], temperature=strength)

    return Learned(_taught(setting, Pupil(_fresh(make, seed)), teach, seed))


def _dkd(setting: Setting, make: MakeStudent = small_student, *, strength: float, seed: int) -> Learned:
    knowledge, labels = setting.taught, setting.views.labels

    def teach(pupil: Pupil, views: Tensor, index: Tensor) -> Tensor:
        logits, y = pupil(views).float(), labels[index]
        soft = decoupled_loss(logits, knowledge.logits[index], y, temperature=TEMPERATURE, beta=strength)
        return labelled_cross_entropy(logits, y) + soft

    return Learned(_taught(setting, Pupil(_fresh(make, seed)), teach, seed))


def _fitnet(setting: Setting, make: MakeStudent = small_student, *, strength: float, seed: int) -> Learned:
    knowledge, labels = setting.taught, setting.views.labels
    hints = knowledge.features[HINT[1]]
    student = _fresh(make, seed)
    with evaluating(student):
        _, (guided,) = layer_outputs(student, torch.zeros(1, 1, 28, 28), [HINT[0]])
    regressor = feature.Regressor(guided.shape[1], hints.shape[1])

    def teach(pupil: Pupil, views: Tensor, index: Tensor) -> Tensor:
        logits, (guided,) = layer_outputs(pupil.student, views, [HINT[0]])
        hint = feature.hint_loss(pupil.companion(guided).float(), hints[index].float())
        return labelled_cross_entropy(logits.float(), labels[index]) + strength * hint

    network = _taught(setting, Pupil(student, regressor), teach, seed)
    return Learned(network, {"regressor_parameters": sum(p.numel() for p in regressor.parameters())})


def _attention(setting: Setting, make: MakeStudent = small_student, *, strength: float, seed: int) -> Learned:
    knowledge, labels = setting.taught, setting.views.labels

    def teach(pupil: Pupil, views: Tensor, index: Tensor) -> Tensor:
        logits, outputs = layer_outputs(pupil.student, views, list(LAYERS))
        apart = [
            (feature.attention_map(output.float()) - knowledge.attention[theirs][index]).square().mean()
            for output, theirs in zip(outputs, LAYERS.values(), strict=True)
        ]
        return labelled_cross_entropy(logits.float(), labels[index]) + strength * torch.stack(apart).sum()

    return Learned(_taught(setting, Pupil(_fresh(make, seed)), teach, seed))


def _rkd(embeddings: Tensor, teachers: Tensor) -> Tensor:
    """RKD with weight 25 for distances and 50 for angles, as in the benchmark; angles for half the batch."""
    distance = relation.rkd_distance_loss(embeddings, teachers)
    return 25 * distance + 50 * relation.rkd_angle_loss(embeddings[:ANGLES], teachers[:ANGLES])


def learn_together(
    setting: Setting,
    make: MakeStudent = small_student,
    make_peer: MakeStudent | None = None,
    *,
    strength: float,
    seed: int,
) -> Learned:
    """Train two students by deep mutual learning, each on the labels and the other's current predictions.

    Returns:
        The first student; the details have the validation accuracies of the peer and of the ensemble.
    """
    peers = Peers([_fresh(make, seed), _fresh(make_peer or make, seed + 1000)])

    def teach(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits = [each.float() for each in model.outputs(images)]  # type: ignore[operator]
        hard = torch.stack([labelled_cross_entropy(each, labels) for each in logits])
        return (hard + strength * peer_losses(logits)).sum()

    trained = _by_labels(setting, peers, seed=seed, loss=teach)
    first, second = trained.students
    found = {
        "peer_validation_accuracy": accuracy(second, setting.validation),
        "ensemble_validation_accuracy": accuracy(trained, setting.validation),
    }
    return Learned(first, found)


def _born_again(
    setting: Setting, make: MakeStudent = small_student, *, strength: float, seed: int
) -> Learned:
    """Train the student alone, then generations with the previous one as teacher, weighted by strength."""
    labels = setting.views.labels

    def learn(teacher: nn.Module) -> nn.Module:
        logits = know(teacher, setting.views, precision=setting.precision).logits

        def teach(pupil: Pupil, views: Tensor, index: Tensor) -> Tensor:
            return kd_loss(
                pupil(views).float(), logits[index], labels[index], temperature=1.0, weight=strength
            )

        return _taught(setting, Pupil(_fresh(make, seed)), teach, seed)

    first = learn_alone(setting, make, seed=seed).network
    generations = born_again(first, learn, generations=GENERATIONS)
    reached = [accuracy(network, setting.validation) for network in generations]
    return Learned(generations[-1], {"generations_validation_accuracy": reached})


def _own_teacher(
    setting: Setting, make: MakeStudent = small_student, *, strength: float, seed: int
) -> Learned:
    exits = EarlyExits(_fresh(make, seed))  # type: ignore[arg-type]
    left = sum(p.numel() for part in (exits.exits, exits.heads) for p in part.parameters())
    teach = functools.partial(own_teacher_loss, weight=strength)
    network = _by_labels(setting, exits, seed=seed, loss=teach).network
    return Learned(network, {"exit_parameters": left})


def _noisy_student(
    setting: Setting, make: MakeStudent = small_student, *, strength: float, seed: int
) -> Learned:
    """Train the student alone, label the images of confident predictions, and train a student on all."""
    teacher = learn_alone(setting, make, seed=seed).network
    found = confident_labels(know(teacher, setting.unlabelled).logits, threshold=strength)
    labels = setting.views.labels.clone()
    unknown = labels == UNLABELLED
    labels[unknown] = found.repeat(int(unknown.sum()) // len(found))

    def teach(pupil: Pupil, views: Tensor, index: Tensor) -> Tensor:
        return labelled_cross_entropy(pupil(views).float(), labels[index])

    network = _taught(setting, Pupil(_fresh(make, seed)), teach, seed)
    return Learned(network, {"pseudo_labelled": float((found != UNLABELLED).float().mean())})


METHODS = {
    "kd": Method(_kd, 4.0, "temperature", "response", "offline"),
    "dkd": Method(_dkd, 8.0, "beta", "response", "offline"),
    "fitnet": Method(_fitnet, 100.0, "weight", "feature", "offline"),
    "attention": Method(_attention, 1000.0, "weight", "feature", "offline"),
    "rkd": Method(_offline(_rkd), 1.0, "weight", "relation", "offline"),
    "pkt": Method(_offline(relation.pkt_loss), 500.0, "weight", "relation", "offline"),
    "sp": Method(_offline(relation.similarity_loss), 3000.0, "weight", "relation", "offline"),
    "mutual": Method(learn_together, 1.0, "weight", "response", "online"),
    "born_again": Method(_born_again, 0.9, "weight", "response", "self"),
    "own_teacher": Method(_own_teacher, 0.3, "weight", "response", "self"),
    "noisy_student": Method(_noisy_student, 0.9, "threshold", "response", "self"),
}
