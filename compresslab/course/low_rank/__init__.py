"""Lab 04, "Thinner layers": matrices and kernels as products of small ones, and when that pays."""

from compresslab.checks.exercise import Lab
from compresslab.course.low_rank import (
    break_even_rank,
    cp_kernel,
    cp_step,
    dropped_error,
    merge_update,
    rank_for_energy,
    spatial_split,
    spread_ranks,
    truncated_svd,
    tucker2,
    tucker_layer,
    unfold,
    whitened_svd,
    why_fewer_macs_are_not_less_time,
    why_half_rank_is_no_smaller,
)
from compresslab.experiments.low_rank.plan import EXPERIMENT

__all__ = ["LAB"]

LAB = Lab(
    name=EXPERIMENT.lab,
    title="Thinner layers",
    about="SVD, activation-aware SVD, Tucker, CP, choosing ranks",
    objectives=(
        "split a linear layer or a convolution into thin ones, by SVD, Tucker and CP, so that it loses least",
        "choose ranks: by error, by energy, under a budget; and leave alone what would grow",
        "say what a factorised network saves in weights, in MACs and in time, and why these three differ",
    ),
    prerequisites=(
        "lab 00",
        "the rank of a matrix, and torch.linalg.svd",
        "what a convolution's weight (out, in, h, w) means",
    ),
    exercises=(
        truncated_svd.EXERCISE,
        break_even_rank.EXERCISE,
        why_half_rank_is_no_smaller.EXERCISE,
        rank_for_energy.EXERCISE,
        dropped_error.EXERCISE,
        spread_ranks.EXERCISE,
        whitened_svd.EXERCISE,
        spatial_split.EXERCISE,
        unfold.EXERCISE,
        tucker2.EXERCISE,
        tucker_layer.EXERCISE,
        cp_kernel.EXERCISE,
        cp_step.EXERCISE,
        why_fewer_macs_are_not_less_time.EXERCISE,
        merge_update.EXERCISE,
    ),
    answers=(
        "compresslab.analysis.allocation",
        "compresslab.techniques.low_rank",
    ),
)
