"""Lab 02, "Teacher and student": what is distilled, and how."""

from compresslab.checks.exercise import Lab
from compresslab.course.distillation import (
    attention_map,
    confident_labels,
    early_exit_loss,
    hidden_state_loss,
    hint_step,
    kd_gradient,
    kd_loss,
    mutual_losses,
    pkt_loss,
    rkd_angle,
    rkd_distance,
    soft_targets,
    why_t_squared,
    why_wrong_answers_teach,
)
from compresslab.experiments.distillation.plan import EXPERIMENT

__all__ = ["LAB"]

LAB = Lab(
    name=EXPERIMENT.lab,
    title="Teacher and student",
    about="response / feature / relation × offline / online / self, on one student",
    objectives=(
        "let a network's answers, features and relations teach a small one; know who gets which gradient",
        "tell the strategies apart: a fixed teacher, peers, oneself; and the names that overviews mix up",
        "compare methods fairly: one student, one budget, one tuning effort, several seeds, losers reported",
    ),
    prerequisites=("lab 00", "cross-entropy and gradients in PyTorch"),
    exercises=(
        soft_targets.EXERCISE,
        why_wrong_answers_teach.EXERCISE,
        kd_loss.EXERCISE,
        kd_gradient.EXERCISE,
        why_t_squared.EXERCISE,
        hint_step.EXERCISE,
        attention_map.EXERCISE,
        rkd_distance.EXERCISE,
        rkd_angle.EXERCISE,
        pkt_loss.EXERCISE,
        mutual_losses.EXERCISE,
        early_exit_loss.EXERCISE,
        confident_labels.EXERCISE,
        hidden_state_loss.EXERCISE,
    ),
    answers=("compresslab.techniques.distillation",),
)
