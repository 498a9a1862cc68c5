"""The transformer that is written out is torch's own; its costs are those counted by hand."""

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_macs, count_parameters, layer_costs
from compresslab.models.transformer import Attention, PatchTransformer, TransformerBlock
from compresslab.training.loop import cross_entropy


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torchs(block: TransformerBlock, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """Torch's own pre-norm layer, with the block's weights."""
    theirs = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    ).double()
    pairs = {
        "self_attn.in_proj_": block.attention.queries_keys_values,
        "self_attn.out_proj.": block.attention.join,
        "linear1.": block.perceptron[0],
        "linear2.": block.perceptron[2],
        "norm1.": block.norm1,
        "norm2.": block.norm2,
    }
    theirs.load_state_dict(
        {name + part: w for name, layer in pairs.items() for part, w in layer.state_dict().items()}
    )
    return theirs


def scattered(model: nn.Module) -> nn.Module:
    """The model in float64 with every parameter drawn, so that no bias is 0 and no norm's weight 1."""
    for number, parameter in enumerate(model.double().parameters()):
        parameter.data = 0.3 * drawn(*parameter.shape, seed=number)
    return model


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (12, 3)])
def test_a_block_returns_what_torchs_encoder_layer_returns(width, heads):
    block, x = scattered(TransformerBlock(width, heads)), drawn(2, 5, width)
    torch.testing.assert_close(block(x)[0], torchs(block, width, heads)(x))


def test_the_softmax_of_the_scores_is_torchs_attention_of_each_head():
    attention, x = scattered(Attention(12, 3)), drawn(2, 5, 12)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    theirs.in_proj_weight, theirs.in_proj_bias = (
        attention.queries_keys_values.weight,
        attention.queries_keys_values.bias,
    )
    _, wanted = theirs(x, x, x, average_attn_weights=False)
    assert attention(x)[1].shape == (2, 3, 5, 5)
    torch.testing.assert_close(attention(x)[1].softmax(dim=-1), wanted)


@pytest.mark.parametrize(("patch", "tokens"), [(7, 16), (4, 49)])
def test_outputs_are_logits_the_embedding_and_each_blocks_state_and_scores(patch, tokens):
    logits, states, scores = PatchTransformer(patch=patch, width=12, heads=3, blocks=2).outputs(
        torch.zeros(3, 1, 28, 28)
    )
    assert logits.shape == (3, 10)
    assert [tuple(state.shape) for state in states] == 3 * [(3, tokens, 12)]
    assert [tuple(matrix.shape) for matrix in scores] == 2 * [(3, 3, tokens, tokens)]


def test_the_states_are_those_of_a_chain_of_torchs_layers_and_the_logits_come_from_the_last():
    model = scattered(PatchTransformer(patch=7, width=8, heads=2, blocks=3))
    logits, states, _ = model.outputs(drawn(2, 1, 28, 28))
    for block, before, after in zip(model.blocks, states, states[1:], strict=False):
        torch.testing.assert_close(torchs(block, 8, 2)(before), after)
    torch.testing.assert_close(logits, model.head(model.norm(states[-1]).mean(dim=1)))


def test_a_token_is_the_linear_map_of_one_patch_plus_the_vector_of_its_place():
    model, image = scattered(PatchTransformer(patch=7, width=8)), drawn(1, 1, 28, 28)
    _, (embedding, *_), _ = model.outputs(image)
    square = image[0, 0, 7:14, 21:28].flatten()  # second row of patches, fourth column: token 4 + 3
    wanted = model.embed.weight.flatten(1) @ square + model.embed.bias + model.positions[0, 7]
    torch.testing.assert_close(embedding[0, 7], wanted)


def test_without_positions_the_order_of_the_patches_would_not_matter():
    model, image = scattered(PatchTransformer(patch=7, width=8)), drawn(1, 1, 28, 28)
    halves_swapped = image.roll(14, dims=2)
    assert not torch.allclose(model(image), model(halves_swapped))
    nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(image), model(halves_swapped))


def test_calling_the_model_returns_its_logits():
    model, images = PatchTransformer(), torch.randn(2, 1, 28, 28)
    assert torch.equal(model(images), model.outputs(images)[0])


def test_its_macs_are_counted_and_are_those_from_the_shapes():
    tokens, width, blocks = 49, 12, 2
    embedding, head = tokens * 16 * width, width * 10
    linear, attention = tokens * (3 + 1 + 4 + 4) * width * width, 2 * tokens * tokens * width
    model = PatchTransformer(patch=4, width=width, heads=3, blocks=blocks)
    inputs = torch.zeros(1, 1, 28, 28)
    assert count_macs(model, inputs) == embedding + blocks * (linear + attention) + head
    costs = layer_costs(model, inputs, rounds=1)
    assert sum(cost.macs for cost in costs) == count_macs(model, inputs)
    assert sum(cost.parameters for cost in costs) == count_parameters(model)


def test_every_parameter_learns():
    model = PatchTransformer(width=8, blocks=2)
    cross_entropy(model, torch.randn(4, 1, 28, 28), torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"patch": 5}, "patch must be a divisor of 28, got 5; 7 makes 16 tokens, 4 makes 49"),
        ({"patch": 0}, "patch must be a divisor of 28, got 0"),
        (
            {"width": 32, "heads": 3},
            "heads must be a divisor of width, got 3 heads for a width of 32; try width=32, heads=2",
        ),
        ({"heads": 0}, "got 0 heads for a width of 32"),
        ({"blocks": 0}, "blocks must be a whole number from 1 up, got 0; 2 make a small student"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(settings, text):
    with pytest.raises(CompressionError, match=text):
        PatchTransformer(**settings)
