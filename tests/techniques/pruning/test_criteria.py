"""A criterion scores every weight and changes none."""

import torch

from compresslab.techniques.pruning import magnitude


def test_the_score_is_the_distance_from_zero():
    weight = torch.tensor([[-2.0, 0.0], [0.5, -0.0]], requires_grad=True)
    scores = magnitude(weight)
    assert scores.tolist() == [[2.0, 0.0], [0.5, 0.0]]
    assert not scores.requires_grad
    assert weight.tolist() == [[-2.0, 0.0], [0.5, 0.0]]


def test_scores_are_even_and_scale_with_the_weights():
    weight = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(magnitude(weight), magnitude(-weight))
    assert torch.allclose(magnitude(-3 * weight), 3 * magnitude(weight))
    assert magnitude(weight).dtype == torch.float64
