"""What happens inside: a small transformer is held against the right layers of a large one."""

import pytest
import torch

from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_parameters
from compresslab.models.transformer import PatchTransformer
from compresslab.techniques.distillation.hidden_states import (
    Projection,
    attention_matrix_loss,
    hidden_state_loss,
    layer_map,
)

LOSSES = pytest.mark.parametrize("loss", [attention_matrix_loss, hidden_state_loss])


def drawn(count, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize(
    ("layers", "teachers", "wanted"),
    [(1, 1, (0, 1)), (2, 2, (0, 1, 2)), (2, 6, (0, 3, 6)), (3, 6, (0, 2, 4, 6)), (1, 5, (0, 5))],
)
def test_layers_are_mapped_evenly_and_the_last_is_the_last(layers, teachers, wanted):
    assert layer_map(layers, teachers) == wanted


@pytest.mark.parametrize(("layers", "teachers"), [(2, 3), (4, 2), (0, 2), (2, 0)])
def test_layers_that_do_not_divide_are_refused(layers, teachers):
    text = f"layers must divide teacher_layers, got {layers} and {teachers}; try 2 and 4"
    with pytest.raises(CompressionError, match=text):
        layer_map(layers, teachers)


def test_attention_is_the_papers_mean_over_heads_of_each_heads_error_summed_over_layers():
    ours, theirs = drawn(2, 3, 4, 5, 5), drawn(6, 3, 4, 5, 5, seed=1)
    wanted = 0.0
    for mine, layer in zip(ours, (3, 6), strict=True):  # counted from 1
        heads = [((mine[:, h] - theirs[layer - 1][:, h]) ** 2).mean() for h in range(4)]
        wanted = wanted + sum(heads) / 4
    torch.testing.assert_close(attention_matrix_loss(ours, theirs), wanted)


def test_hidden_states_begin_with_the_embedding():
    ours, theirs = drawn(3, 2, 5, 4), drawn(5, 2, 5, 4, seed=1)  # 2 and 4 blocks
    pairs = [(ours[0], theirs[0]), (ours[1], theirs[2]), (ours[2], theirs[4])]
    wanted = sum(((mine - other) ** 2).sum() / mine.numel() for mine, other in pairs)
    torch.testing.assert_close(hidden_state_loss(ours, theirs), wanted)


@LOSSES
def test_a_student_that_does_as_its_teacher_has_nothing_to_learn(loss):
    same = drawn(3, 2, 3, 4, 4)
    assert loss(same, same) == 0


@LOSSES
def test_the_teacher_gets_no_gradient(loss):
    ours = [x.requires_grad_() for x in drawn(3, 2, 3, 4, 4)]
    theirs = [x.requires_grad_() for x in drawn(3, 2, 3, 4, 4, seed=1)]
    loss(ours, theirs).backward()
    assert all(x.grad.any() for x in ours)
    assert all(x.grad is None for x in theirs)


@LOSSES
def test_tensors_in_half_precision_are_compared_in_float32(loss):
    ours, theirs = ([x.bfloat16() for x in drawn(3, 2, 3, 4, 4, seed=s)] for s in (0, 1))
    assert loss(ours, theirs).dtype == torch.float32
    assert torch.equal(loss(ours, theirs), loss([x.float() for x in ours], [x.float() for x in theirs]))


def test_a_projection_is_one_matrix_for_the_embedding_and_one_for_all_blocks():
    projection, states = Projection(4, 6).double(), drawn(3, 2, 5, 4)
    embedding, *rest = projection(states)
    torch.testing.assert_close(embedding, states[0] @ projection.embedding.weight.T)
    for state, out in zip(states[1:], rest, strict=True):
        torch.testing.assert_close(out, state @ projection.blocks.weight.T)
    assert count_parameters(projection) == 2 * 4 * 6


def test_a_projection_that_exists_is_found():  # a teacher that is a linear map of the student
    states, matrix = drawn(3, 2, 5, 4), drawn(1, 6, 4, seed=1)[0]
    teacher = [state @ matrix.T for state in states]
    projection = Projection(4, 6).double()
    assert hidden_state_loss(projection(states), teacher) > 0.1
    with torch.no_grad():
        projection.embedding.weight.copy_(matrix)
        projection.blocks.weight.copy_(matrix)
    assert hidden_state_loss(projection(states), teacher) < 1e-20


def test_a_tiny_transformer_learns_what_happens_inside_a_larger_one():
    torch.manual_seed(0)
    teacher, student = PatchTransformer(width=16, blocks=4), PatchTransformer(width=8, blocks=2)
    projection, images = Projection(8, 16), torch.randn(8, 1, 28, 28)
    optimizer = torch.optim.Adam([*student.parameters(), *projection.parameters()], lr=0.01)
    _, states, scores = teacher.outputs(images)
    losses = []
    for _ in range(30):
        _, ours, attention = student.outputs(images)
        loss = hidden_state_loss(projection(ours), states) + attention_matrix_loss(attention, scores)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("loss", "name"), [(attention_matrix_loss, "attention scores"), (hidden_state_loss, "hidden states")]
)
def test_other_shapes_are_refused_instead_of_broadcast(loss, name):
    text = rf"{name} of student and teacher must have one shape, got \(2, 3, 4\) and \(2, 1, 4\); give both"
    with pytest.raises(CompressionError, match=text):
        loss(drawn(2, 2, 3, 4), drawn(2, 2, 1, 4))


@LOSSES
def test_lists_whose_lengths_do_not_divide_are_refused(loss):
    with pytest.raises(CompressionError, match="layers must divide teacher_layers"):
        loss(drawn(3, 2, 4, 4), drawn(4, 2, 4, 4))
