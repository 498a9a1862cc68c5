"""Distillation of a transformer by its teacher's logits, attention matrices and hidden states.

The setting is that of all methods; student and teacher are ``PatchTransformer``s with the same patch size and
number of heads. Attention matrices and hidden states are too large to cache for every view, so this teacher
runs in every step.

    alone      cross-entropy of the labelled images
    response   KD at temperature 4, as in the papers
    tinybert   the same + attention matrices + hidden states, each with weight 1

Left out: the paper's first stage without labels, on other text.

Source: Jiao et al. 2019, "TinyBERT", arXiv:1909.10351.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.experiments.distillation.methods import Learned
from compresslab.experiments.distillation.setting import Setting
from compresslab.models.surgery import evaluating
from compresslab.models.transformer import PatchTransformer
from compresslab.techniques.distillation.hidden_states import (
    Projection,
    attention_matrix_loss,
    hidden_state_loss,
)
from compresslab.techniques.distillation.offline import Pupil, distill
from compresslab.techniques.distillation.response import kd_loss

__all__ = ["deep_transformer", "learn_inside", "shallow_transformer"]


def deep_transformer() -> PatchTransformer:
    """The untrained teacher: four blocks of width 64, four heads."""
    return PatchTransformer(patch=7, width=64, heads=4, blocks=4)


def shallow_transformer() -> PatchTransformer:
    """The untrained student: two blocks of width 32, four heads."""
    return PatchTransformer(patch=7, width=32, heads=4, blocks=2)


def learn_inside(setting: Setting, teacher: PatchTransformer, *, answers_alone: bool, seed: int) -> Learned:
    """Train the student transformer by its teacher's logits, or by attention and hidden states too."""
    labels = setting.views.labels
    torch.manual_seed(seed)
    student = shallow_transformer()
    projection = Projection(student.head.in_features, teacher.head.in_features)

    def teach(pupil: Pupil, views: Tensor, index: Tensor) -> Tensor:
        with evaluating(teacher):
            wanted, teacher_states, teacher_scores = teacher.outputs(views)
        logits, states, scores = pupil.student.outputs(views)  # type: ignore[operator]
        loss = kd_loss(logits.float(), wanted.float(), labels[index])
        if not answers_alone:
            projected = pupil.companion(states)
            loss = loss + hidden_state_loss(projected, teacher_states)
            loss = loss + attention_matrix_loss(scores, teacher_scores)
        return loss

    pupil = Pupil(student, projection)
    trained = distill(pupil, setting.views, setting.validation, teach, **setting.training(seed))
    left = sum(parameter.numel() for parameter in projection.parameters())
    return Learned(trained.model, {} if answers_alone else {"projection_parameters": left})
