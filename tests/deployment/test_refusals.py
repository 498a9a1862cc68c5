"""What can't be deployed is one clear error: an operation, a place, images, whatever a bad file may hold."""

import contextlib
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from compresslab.deployment import load_deployed, read_onnx, write_onnx
from compresslab.errors import CompressionError
from compresslab.models.graph import GraphNetwork, trace
from compresslab.techniques.quantization.batch_norm_folding import fold_batch_norm
from compresslab.techniques.quantization.static import quantize_static

fuzzing = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
X = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    ).eval()


@pytest.fixture
def stored(model, tmp_path):
    write_onnx(quantize_static(model, X), tmp_path / "tiny.onnx", image_shape=(1, 12, 12))
    return tmp_path / "tiny.onnx"


def test_an_operation_that_can_not_be_written_is_named(tmp_path):
    model = fold_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh()))
    with pytest.raises(CompressionError, match=r"^1 is Tanh\(\); a graph can have Conv2d"):
        write_onnx(model, tmp_path / "m.onnx")
    network = trace(nn.Sequential(nn.ReLU()))
    replaced = GraphNetwork(network.nodes, {"_0": nn.Tanh()})
    with pytest.raises(
        CompressionError, match=r"^_0 is Tanh\(\), which can't be written; a deployed network is"
    ):
        write_onnx(replaced, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_place_that_can_not_be_written_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CompressionError, match=r"can't be written \(.*\); name a file in a folder that you may"
    ):
        write_onnx(model, tmp_path / "file" / "m.onnx")


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_other(stored, model, monkeypatch):
    before = stored.read_bytes()

    def break_off(place, content):
        with place.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", break_off)
    with pytest.raises(CompressionError, match=r"can't be written \(No space left on device\)"):
        write_onnx(model, stored)
    assert stored.read_bytes() == before
    assert [place.name for place in stored.parent.iterdir()] == [stored.name]


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_threads_are_at_least_one(threads, stored):
    with pytest.raises(
        CompressionError, match=r"^threads must be a whole number from 1 up, got .*; 1 is the steadiest$"
    ):
        load_deployed(stored, threads=threads)


def test_images_of_another_shape_or_type_are_refused(stored):
    deployed = load_deployed(stored)
    for wrong in (X[:, :, :5], X.double(), X[0]):
        with pytest.raises(
            CompressionError, match=r"^tiny.onnx can't run on \(.*; it takes float32 images \("
        ):
            deployed(wrong)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(
        CompressionError, match=r"absent.onnx can't be read \(No such file .*\); expected an ONNX"
    ):
        load_deployed(tmp_path / "absent.onnx")


@pytest.mark.parametrize("content", [b"", b"not a graph at all", b"\x80\x04]."])
def test_something_else_than_a_graph_is_refused(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(
        CompressionError, match=r"m.onnx holds \d+ bytes .*; expected an ONNX file by write_onnx"
    ):
        load_deployed(tmp_path / "m.onnx")


def test_a_file_that_takes_its_weights_from_other_files_is_refused(stored, tmp_path):
    import onnx

    model = onnx.load(stored)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(
        CompressionError, match=r"m.onnx keeps its weights in other files; expected an ONNX file"
    ):
        load_deployed(tmp_path / "m.onnx")


def test_a_graph_of_two_inputs_is_refused(stored, tmp_path):
    model = read_onnx(stored)
    model.graph.input.add().CopyFrom(model.graph.input[0])
    model.graph.input[1].name = "another"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        CompressionError, match=r"m.onnx has 2 inputs and 1 outputs, not one of each; expected an"
    ):
        load_deployed(tmp_path / "m.onnx")


@fuzzing
@given(place=st.floats(0, 0.999), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_a_clear_error_or_another_network_never_a_crash(stored, place, byte, cut):
    content = bytearray(stored.read_bytes())
    at = int(place * len(content))
    content[at] = byte
    damaged = stored.with_name("damaged.onnx")
    damaged.write_bytes(content[:at] if cut else content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with contextlib.suppress(CompressionError):  # any other error fails
            load_deployed(damaged)(X[:1])
