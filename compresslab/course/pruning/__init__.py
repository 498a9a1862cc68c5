"""Lab 03, "Fewer weights": criterion, granularity, schedule; and channels that are really removed."""

from compresslab.checks.exercise import Lab
from compresslab.course.pruning import (
    cubic_sparsity,
    global_masks,
    magnitude_mask,
    masked_step,
    obd_score,
    obs_step,
    relative_index,
    remove_channels,
    residual_groups,
    sparsities_under_budget,
    structured_mask,
    taylor_score,
    two_of_four_mask,
    why_a_quarter_is_left,
    why_masks_save_nothing,
    why_small_gradients_mislead,
)
from compresslab.experiments.pruning.plan import EXPERIMENT

__all__ = ["LAB"]

LAB = Lab(
    name=EXPERIMENT.lab,
    title="Fewer weights",
    about="criteria × granularity × schedule; channels really removed",
    objectives=(
        "choose what goes: by magnitude, gradient or curvature; single weights, groups, channels; when",
        "keep a pruned network pruned while it trains, and give each layer the share that it bears",
        "say what a mask saves and what it does not; remove channels so that file and time really shrink",
    ),
    prerequisites=("lab 00", "gradients in PyTorch", "what a convolution's weight (out, in, h, w) means"),
    exercises=(
        magnitude_mask.EXERCISE,
        global_masks.EXERCISE,
        sparsities_under_budget.EXERCISE,
        structured_mask.EXERCISE,
        two_of_four_mask.EXERCISE,
        why_masks_save_nothing.EXERCISE,
        relative_index.EXERCISE,
        taylor_score.EXERCISE,
        why_small_gradients_mislead.EXERCISE,
        obd_score.EXERCISE,
        obs_step.EXERCISE,
        masked_step.EXERCISE,
        cubic_sparsity.EXERCISE,
        residual_groups.EXERCISE,
        remove_channels.EXERCISE,
        why_a_quarter_is_left.EXERCISE,
    ),
    answers=(
        "compresslab.analysis.allocation",
        "compresslab.storage.sparse",
        "compresslab.techniques.pruning",
    ),
)
