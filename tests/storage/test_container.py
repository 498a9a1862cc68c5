"""A model goes to a file and comes back; a damaged file is one clear error, whatever the damage."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from compresslab.errors import CompressionError
from compresslab.storage import Ledger, load_model, read, save_model, write

fuzzing = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Halved(nn.Module):
    """A layer that keeps its weight as float16 and a scale: a stand-in for every packed layer to come."""

    def __init__(self, weight):
        super().__init__()
        self.inner = nn.Linear(*reversed(weight.shape), bias=False)
        self.load_parts({"half": weight.half(), "scale": torch.tensor(2.0)})

    def parts(self):
        return {"half": self.half, "scale": self.scale}

    def load_parts(self, tensors):
        self.half, self.scale = tensors["half"], tensors["scale"]
        with torch.no_grad():
            self.inner.weight.copy_(self.half.float() * self.scale)

    def forward(self, x):
        return self.inner(x)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 4, 2)).eval()


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(network(), path)
    return path


def header_size(path):
    return 8 + int.from_bytes(Path(path).read_bytes()[:8], "little")  # the format's own definition


# --- there and back -------------------------------------------------------------------------------


def test_a_model_comes_back_with_the_same_outputs_and_into_is_left_alone(stored):
    into, x = network(seed=1), torch.randn(2, 1, 4, 4)
    before = {name: tensor.clone() for name, tensor in into.state_dict().items()}
    assert torch.equal(load_model(stored, into=into)(x), network()(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in into.state_dict().items())


def test_any_reader_of_safetensors_finds_the_tensors_under_module_and_part(stored):
    tensors = load_file(stored)
    assert torch.equal(tensors["0/weight"], network()[0].weight)
    assert {name.replace("/", ".") for name in tensors} == set(network().state_dict())


def test_a_module_with_parts_is_stored_by_its_parts_and_nothing_else(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), Halved(torch.randn(3, 4)))
    ledger = save_model(model, tmp_path / "m")
    assert list(ledger.parts) == ["0/weight", "0/bias", "1/half", "1/scale"]
    assert ledger.of_module("1") == 3 * 4 * 2 + 4
    into = nn.Sequential(nn.Linear(4, 4), Halved(torch.zeros(3, 4)))
    x = torch.randn(2, 4)
    assert torch.equal(load_model(tmp_path / "m", into=into)(x), model(x))


def test_a_submodule_that_is_called_parts_is_only_a_submodule(tmp_path):
    model = nn.Sequential()
    model.add_module("parts", nn.Linear(2, 2))
    assert list(save_model(model, tmp_path / "m").parts) == ["parts/weight", "parts/bias"]


def test_a_shared_weight_is_written_once_and_stays_shared(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    untied = save_model(model, tmp_path / "untied")
    model[1].weight = model[0].weight
    tied = save_model(model, tmp_path / "tied")
    assert sum(tied.parts.values()) == 8 * 8 * 4 == sum(untied.parts.values()) // 2
    back = load_model(tmp_path / "tied", into=model)
    assert back[0].weight is back[1].weight
    assert torch.equal(back[0].weight, model[0].weight)
    with pytest.raises(CompressionError, match="do not share the same tensors: 1/weight"):
        load_model(tmp_path / "untied", into=model)


def test_a_buffer_outside_the_state_dict_is_not_stored(tmp_path):
    model = nn.Linear(2, 2)
    model.register_buffer("kept", torch.ones(1))
    model.register_buffer("scratch", torch.ones(1), persistent=False)
    assert set(save_model(model, tmp_path / "m").parts) == {"/weight", "/bias", "/kept"}


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn],
)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 2), (2, 0, 3)])
def test_every_dtype_and_shape_comes_back(tmp_path, dtype, shape):
    tensor = (torch.randn(shape) * 3).to(dtype)
    write(tmp_path / "t", {"a/b": tensor}, note={"bits": 4})
    tensors, note = read(tmp_path / "t")
    assert tensors["a/b"].dtype == dtype
    assert tensors["a/b"].shape == shape
    assert torch.equal(tensors["a/b"].float(), tensor.float())
    assert note == {"bits": 4}


def test_a_transposed_tensor_comes_back_as_it_looks(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3).T
    write(tmp_path / "t", {"w": tensor, "whole": tensor.T})
    assert torch.equal(read(tmp_path / "t")[0]["w"], tensor)


# --- the ledger, and the file ---------------------------------------------------------------------


def test_the_ledger_sums_to_what_the_disk_says(tmp_path):
    for count in range(6):
        parts = {f"layer{i}/weight": torch.zeros(i, 3, dtype=torch.int8) for i in range(count)}
        ledger = write(tmp_path / "t", parts)
        assert ledger.total == os.path.getsize(tmp_path / "t")
        assert ledger.header == header_size(tmp_path / "t")
        assert ledger.parts == {name: 3 * i for i, name in enumerate(parts)}


def test_the_same_model_gives_the_same_bytes(tmp_path, stored):
    save_model(network(), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == stored.read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, stored, monkeypatch):
    old = stored.read_bytes()

    def full_disk(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("compresslab.storage.atomic.save_file", full_disk)
    with pytest.raises(
        CompressionError, match=r"can't be written .*No space left.*a folder that you may write to"
    ):
        save_model(network(seed=1), stored)
    assert stored.read_bytes() == old
    assert os.listdir(stored.parent) == [stored.name]


def test_a_sparse_tensor_is_told_to_give_its_parts(tmp_path):
    with pytest.raises(
        CompressionError, match=r"a/w is a torch.sparse_coo .*plain dense tensors. Give its module parts"
    ):
        write(tmp_path / "t", {"a/w": torch.eye(2).to_sparse()})


# --- files that are not what they should be -------------------------------------------------------


def hostile_files():
    table = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    yield "is empty", b""
    yield "holds 3 bytes", b"abc"
    yield "can't be understood", (2**63).to_bytes(8, "little") + b"{}"
    yield "can't be understood", (10**9).to_bytes(8, "little") + b"{}" * 40
    yield "can't be understood", pickle.dumps({"w": [1.0, 2.0]})
    yield "can't be understood", b"PK\x03\x04" + bytes(200)
    yield (
        "can't be understood",
        len(table).to_bytes(8, "little") + table + bytes(8),
    )  # safetensors, but not ours
    yield "can't be understood", (200_000).to_bytes(8, "little") + b"[" * 200_000


@pytest.mark.parametrize(("says", "content"), list(hostile_files()))
def test_a_strange_file_is_named_and_the_error_says_what_to_do(tmp_path, says, content):
    path = tmp_path / "strange"
    path.write_bytes(content)
    with pytest.raises(CompressionError) as caught:
        load_model(path, into=network())
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "expected a file written by save_model. Write it again" in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            CompressionError, match=f"{path} can't be read .*expected a file written by save_model"
        ):
            load_model(path, into=network())


@pytest.mark.parametrize(
    "note", [None, "", "[]", "{}", '{"checksum": 0}', '{"checksum": 0, "aliases": 3, "note": {}}']
)
def test_a_table_with_a_strange_note_is_refused(tmp_path, note):
    save_file({"w": torch.ones(1)}, tmp_path / "t", metadata=None if note is None else {"compresslab": note})
    with pytest.raises(CompressionError, match="can't be understood"):
        read(tmp_path / "t")


@fuzzing
@given(content=st.binary(max_size=400))
def test_random_bytes_are_refused(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(CompressionError, match="expected a file written by save_model"):
        read(tmp_path / "t")


@fuzzing
@given(data=st.data())
def test_a_truncated_file_is_refused(stored, tmp_path, data):
    content = stored.read_bytes()
    (tmp_path / "t").write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(CompressionError, match="expected a file written by save_model"):
        read(tmp_path / "t")


@fuzzing
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused(stored, tmp_path, data):
    content = bytearray(stored.read_bytes())
    place = data.draw(st.integers(0, header_size(stored) - 1) | st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(CompressionError, match="expected a file written by save_model"):
        read(tmp_path / "t")


@pytest.mark.parametrize(
    ("into", "says"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 3, 3)),
            r"holds another model: 1/bias is only in the file. It has 9 tensors",
        ),
        (nn.Sequential(*network(), nn.Linear(2, 2)), r"holds another model: 4/bias is only in the model"),
        (
            nn.Sequential(*network()[:3], nn.Linear(12, 3)),
            r"has 3/weight as \(2, 12\) torch.float32.*wants \(3, 12\)",
        ),
        (network().half(), r"has 0/weight as \(3, 1, 3, 3\) torch.float32.*wants .* torch.float16"),
    ],
)
def test_a_file_of_another_model_is_refused(stored, into, says):
    with pytest.raises(CompressionError, match=says) as caught:
        load_model(stored, into=into)
    assert "give a model with the structure of the one that was saved" in str(caught.value)


def test_parts_that_a_layer_refuses_are_a_clear_error(tmp_path):
    save_model(Halved(torch.randn(3, 4)), tmp_path / "m")
    with pytest.raises(
        CompressionError, match=r"m: Halved can't be rebuilt from half, scale .*structure of the one"
    ):
        load_model(tmp_path / "m", into=Halved(torch.randn(5, 4)))


def test_a_ledger_counts_only_the_own_tensors_of_a_module():
    ledger = Ledger({"a/weight": 3, "a.b/weight": 5, "/bias": 1}, header=10)
    assert (ledger.of_module("a"), ledger.of_module("a.b"), ledger.of_module(""), ledger.total) == (
        3,
        5,
        1,
        19,
    )
