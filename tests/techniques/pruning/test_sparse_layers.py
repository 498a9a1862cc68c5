"""Sparse layers: they compute as before, and what their zeros took is gone from the file."""

import copy
import os
import re

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.measurement.costs import count_macs, count_parameters, storage_bytes
from compresslab.models.graph import trace
from compresslab.models.residual import student
from compresslab.storage import load_model, read, save_model
from compresslab.storage.sparse import BITMAP, CSR, DENSE, FORMS, relative_index
from compresslab.techniques.pruning.channel_removal import load_pruned, remove_channels
from compresslab.techniques.pruning.sparse_layers import SparseConv2d, SparseLinear, store_sparsely

GAPS = relative_index(bits=4)
SPARSE = [[BITMAP], [GAPS], [relative_index(bits=5)], [CSR]]
every_choice = pytest.mark.parametrize("forms", [*SPARSE, [DENSE], FORMS], ids=str)
X = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def layers():
    torch.manual_seed(0)
    yield nn.Linear(13, 5), torch.randn(2, 13)
    yield nn.Linear(6, 5, bias=False), torch.randn(2, 6)
    yield nn.Conv2d(4, 6, 3, 2, padding=1, groups=2), torch.randn(2, 4, 8, 8)
    yield nn.Conv2d(3, 5, (1, 3), dilation=2, padding="same", padding_mode="reflect"), torch.randn(2, 3, 8, 8)


@torch.no_grad()
def pruned(model, sparsity, seed=0):
    """The model with that share of every Conv2d and Linear weight at zero, anywhere."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.mul_(torch.rand(layer.weight.shape, generator=generator) >= sparsity)
    return model


def wide(seed=0):
    """Most of its bytes are weights, so that ratios are those of the forms."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))


@every_choice
def test_a_layer_computes_as_the_original_and_comes_back_from_its_file(forms, tmp_path):
    for layer, x in layers():
        stored = store_sparsely(pruned(layer, 0.8), forms=forms)
        assert type(stored) is (SparseConv2d if isinstance(layer, nn.Conv2d) else SparseLinear)
        assert torch.equal(stored(x), layer(x))
        save_model(stored, tmp_path / "one")
        empty = store_sparsely(layer, forms=forms)
        nn.init.ones_(empty.weight)
        assert torch.equal(load_model(tmp_path / "one", into=empty)(x), layer(x))


@every_choice
def test_the_ledger_sums_to_the_size_of_the_file_and_values_are_those_that_are_counted(forms, tmp_path):
    model = pruned(student(), 0.9)
    ledger = save_model(store_sparsely(model, forms=forms), tmp_path / "one")
    assert ledger.total == os.path.getsize(tmp_path / "one")
    smallest = min(form.storage_bytes(model.head.weight) for form in forms)
    assert ledger.of_module("head") == smallest + 1 + model.head.bias.nbytes


def test_any_network_of_the_structure_can_be_loaded_into_whatever_forms_its_layers_have(tmp_path):
    model = store_sparsely(pruned(student().eval(), 0.9))
    save_model(model, tmp_path / "one")
    for sparsity, forms in [(0.0, FORMS), (1.0, FORMS), (0.0, [CSR])]:
        torch.manual_seed(1)
        back = load_model(
            tmp_path / "one", into=store_sparsely(pruned(student(), sparsity), forms=forms)
        ).eval()
        assert torch.equal(back(X), model(X))


def test_the_form_is_chosen_layer_by_layer_and_anew_at_every_writing(tmp_path):
    model = wide()
    pruned(model[1], 0.9)
    stored = store_sparsely(model)

    def numbers():
        save_model(stored, tmp_path / "one")
        tensors, _ = read(tmp_path / "one")
        return [int(tensors[f"{name}/positions"][0]) for name in ("1", "3")]

    assert numbers() == [6, DENSE.number]
    pruned(stored[3], 0.5)
    assert numbers() == [6, BITMAP.number]


@pytest.mark.parametrize("forms", SPARSE, ids=str)
def test_without_zeros_a_sparse_file_is_larger_than_a_dense_one(forms):
    model = wide()
    assert storage_bytes(store_sparsely(model, forms=forms)) > storage_bytes(model)


def test_without_zeros_the_choice_falls_on_dense_and_costs_a_name_and_a_byte_a_layer():
    model = wide()
    assert 0 < storage_bytes(store_sparsely(model)) - storage_bytes(model) < 2 * 120


@pytest.mark.parametrize(
    ("forms", "at_least"),
    [([BITMAP], 7.2), ([GAPS], 6.8), ([relative_index(bits=5)], 7.8), ([CSR], 6.2), (FORMS, 7.8)],
    ids=str,
)
def test_ninety_percent_of_zeros_make_the_file_more_than_six_times_smaller(forms, at_least):
    model = pruned(wide(), 0.9)
    dense = storage_bytes(model)
    assert dense == storage_bytes(wide())  # zeros alone save nothing
    assert dense / storage_bytes(store_sparsely(model, forms=forms)) >= at_least


def test_half_precision_weights_stay_so():
    for layer, _ in layers():
        stored = store_sparsely(pruned(layer, 0.5).half())
        back = copy.deepcopy(stored)
        nn.init.zeros_(back.weight)
        back.load_parts(stored.parts())
        assert back.weight.dtype == torch.float16
        assert torch.equal(back.weight, stored.weight)


def test_parameters_macs_names_and_steps_are_those_of_the_original():
    model = pruned(student().eval(), 0.8)
    stored = store_sparsely(model)
    assert list(stored.state_dict()) == list(model.state_dict())
    assert count_parameters(stored) == count_parameters(model)
    assert count_macs(stored, X) == count_macs(model, X)
    assert torch.equal(trace(store_sparsely(wide()))(X), wide()(X))


def test_training_goes_on_from_there():
    stored = store_sparsely(wide())
    stored(X).sum().backward()
    assert all(parameter.grad is not None for parameter in stored.parameters())


def test_the_model_is_left_alone_and_nothing_is_shared():
    model = student().train()
    before = copy.deepcopy(model.state_dict())
    stored = store_sparsely(model)
    with torch.no_grad():
        for parameter in stored.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(isinstance(module, SparseConv2d | SparseLinear) for module in model.modules())


def test_a_sparse_layer_made_by_hand_has_a_weight_and_a_bias_of_its_own():
    for layer, x in layers():
        sparse = (SparseConv2d if isinstance(layer, nn.Conv2d) else SparseLinear)(layer)
        before = sparse(x)
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        assert torch.equal(sparse(x), before)


def test_no_random_number_is_drawn_and_the_mode_and_what_is_trained_are_kept():
    model = student().eval()
    model.head.weight.requires_grad_(False)
    state = torch.random.get_rng_state()
    stored = store_sparsely(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module.training for module in stored.modules())
    assert not stored.head.weight.requires_grad
    assert stored.head.bias.requires_grad


def test_a_layer_in_two_places_is_made_once_and_written_once(tmp_path):
    shared = nn.Linear(4, 4)
    stored = store_sparsely(nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared)))
    assert stored[0] is stored[2][0]
    assert list(save_model(stored, tmp_path / "one").parts) == ["0/positions", "0/values", "0/bias"]


def test_stored_again_a_layer_takes_the_new_forms():
    layer = store_sparsely(nn.Linear(4, 4), forms=[BITMAP])
    assert store_sparsely(layer, forms=[CSR]).forms == (CSR,)


class Doubled(nn.Linear):
    """Multiplies with something other than its weight."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_layer_of_another_kind_stays_as_it_is():
    model, x = nn.Sequential(Doubled(3, 3)), torch.ones(1, 3)
    assert type(store_sparsely(model)[0]) is Doubled
    assert torch.equal(store_sparsely(model)(x), model(x))


LINEAR = store_sparsely(nn.Linear(6, 4))
OTHER = "load into a network of the structure and the dtype of the one that was saved"
WRONG = {
    "model must have a Conv2d or Linear layer, got ReLU without any; give the whole network": lambda: (
        store_sparsely(nn.ReLU())
    ),
    "forms must be a list of forms, at least one, got []; try [BITMAP]": lambda: store_sparsely(
        LINEAR, forms=[]
    ),
    f"weight must be (4, 6) torch.float32, got (4, 6) torch.float16; {OTHER}": lambda: LINEAR.load_parts(
        copy.deepcopy(LINEAR).half().parts()
    ),
    f"bias must be (4,) torch.float32, got (1,) torch.float32; {OTHER}": lambda: LINEAR.load_parts(
        LINEAR.parts() | {"bias": torch.ones(1)}
    ),
}


@pytest.mark.parametrize("says", WRONG)
def test_bad_input_is_refused_with_its_text_and_nothing_is_loaded_by_half(says):
    before = copy.deepcopy(LINEAR.state_dict())
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        WRONG[says]()
    assert all(torch.equal(tensor, before[name]) for name, tensor in LINEAR.state_dict().items())


def test_a_file_of_another_shape_is_refused_by_its_path(tmp_path):
    save_model(store_sparsely(nn.Linear(6, 4), forms=[CSR]), tmp_path / "six")
    with pytest.raises(
        CompressionError, match=r"six: SparseLinear can't be rebuilt .*columns must lie in 0 … 4, got 5"
    ):
        load_model(tmp_path / "six", into=store_sparsely(nn.Linear(5, 4)))


def test_a_thin_sparse_file_has_no_shapes_and_what_is_advised_instead_reads_it(tmp_path):
    widths = {"stem.0": range(5), "blocks.0.conv1": [1, 2]}
    thin = pruned(remove_channels(student().eval(), widths), 0.8)
    sparse, plain = tmp_path / "sparse", tmp_path / "plain"
    save_model(store_sparsely(thin), sparse)
    says = (
        f"{sparse} is a file without shapes (blocks.0.conv1.positions stands for a weight); load_pruned "
        "takes widths from the weights' shapes: save the thin network as it is, or load it with "
        "load_model(path, into=store_sparsely(a network of the same widths))"
    )
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        load_pruned(sparse, into=student())
    save_model(thin, plain)
    same_widths = remove_channels(student(), widths)
    back = load_pruned(plain, into=student()), load_model(sparse, into=store_sparsely(same_widths))
    assert all(torch.equal(network.eval()(X), thin(X)) for network in back)


def test_a_tensor_that_is_called_positions_is_no_sparse_layer(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    model[1].register_buffer("positions", torch.arange(4))
    save_model(model, tmp_path / "one")
    assert torch.equal(load_pruned(tmp_path / "one", into=model)[1].positions, torch.arange(4))
