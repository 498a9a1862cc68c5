"""The compared methods by name: each trains a student in a ``Task``, with its own tuned settings."""

from __future__ import annotations

from collections.abc import Callable

from compresslab.experiments.distillation.comparison import feature_and_relation, peers_and_self, response
from compresslab.experiments.distillation.comparison.learning import Learned

__all__ = ["METHODS"]

METHODS: dict[str, Callable[..., Learned]] = {
    "alone": response.alone,
    "hard_labels": response.by_hard_labels,
    "kd": response.kd,
    "permuted": response.permuted,
    "dkd": response.dkd,
    "fitnet": feature_and_relation.fitnet,
    "fitnet_in_stages": feature_and_relation.fitnet_in_stages,
    "attention": feature_and_relation.attention,
    "rkd": feature_and_relation.rkd,
    "pkt": feature_and_relation.pkt,
    "sp": feature_and_relation.sp,
    "mutual": peers_and_self.by_peers,
    "born_again": peers_and_self.generations,
    "deep_alone": peers_and_self.deep_alone,
    "own_teacher": peers_and_self.own_teacher,
    "noisy_student": peers_and_self.noisy_student,
}
