"""Records: what is written comes back the same; what a hostile worker writes is refused unpacked."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compresslab.checks import record as recording
from compresslab.checks.record import Recorded, describe, from_bytes, same, to_bytes
from compresslab.errors import CompressionError

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


@given(dtype=st.sampled_from(DTYPES), shape=st.lists(st.integers(0, 4), max_size=4), seed=st.integers(0, 99))
def test_a_tensor_comes_back_with_its_numbers_dtype_and_strides(dtype, shape, seed):
    values = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 9).to(dtype)
    given_ = values.permute(list(reversed(range(values.dim()))))
    back = from_bytes(to_bytes({"x": given_}))["x"]
    assert back.dtype == dtype
    assert torch.equal(back, given_)
    assert back.numel() == 0 or back.stride() == given_.stride()


def test_a_tensor_with_gaps_or_repeats_comes_back_with_the_same_numbers():
    for tensor in (torch.arange(12.0).reshape(3, 4)[:, ::2], torch.ones(1, 3).expand(2, 3)):
        assert torch.equal(from_bytes(to_bytes(tensor)), tensor)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner) | st.tuples(inner, inner),
)


@given(plain_values)
def test_plain_values_come_back_as_they_were(tree):
    assert from_bytes(to_bytes(tree)) == tree


@given(plain_values)
def test_a_record_comes_back_equal(value):
    record = describe(value)
    assert same(from_bytes(to_bytes(record)), record)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 0), (2, 3)])
def test_a_tensor_of_booleans_comes_back_in_its_shape(shape):
    record = describe(torch.ones(shape, dtype=torch.bool))
    back = from_bytes(to_bytes(record))
    assert same(back, record)
    assert back.array.shape == shape


class LiesAboutItsClass:
    __class__ = torch.Tensor


class NameRaises(type):
    @property
    def __name__(cls):
        raise ValueError


class CannotPrint:
    def __repr__(self):
        raise ValueError


@pytest.mark.parametrize(
    "value",
    [
        LiesAboutItsClass(),
        NameRaises("X", (), {})(),
        CannotPrint(),
        torch.empty(3, device="meta"),
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2, 2).to_sparse(),
        np.array([{}]),
        2**80,
        object,
    ],
    ids=lambda value: type(value).__class__.__name__,
)
def test_what_can_not_be_recorded_as_numbers_is_described_in_words(value):
    record = describe(value)
    assert record.array is None
    assert record.items is None
    assert from_bytes(to_bytes(record)) == record


# Hostile bytes.


def refused(content: bytes, match: str) -> None:
    with pytest.raises(CompressionError, match=match):
        from_bytes(content)


def archive(tree: object = None, *, compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """A record file with this tree and these raw members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        target.writestr("tree.npy", npy(np.frombuffer(json.dumps(tree).encode(), np.uint8)))
        for name, content in members.items():
            target.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def declared(shape: tuple[int, ...], dtype: str, content: bytes = b"") -> bytes:
    """An array file whose header says so, whatever follows."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def test_the_hostile_files_below_are_refused_for_their_fault_alone():
    assert from_bytes(archive({"array": "a"}, a=npy(np.arange(3)))).tolist() == [0, 1, 2]


def test_a_compressed_member_is_refused_so_that_no_bomb_can_hide():
    refused(archive(compression=zipfile.ZIP_DEFLATED, a=npy(np.zeros(10**6))), "compressed member")


def test_a_huge_declared_shape_is_refused_without_allocating_it():
    refused(archive({"array": "a"}, a=declared((10**12,), "<f8")), "declared")
    refused(archive({"array": "a"}, a=declared((2**40, 2**40), "<f8")), "declared")
    refused(archive({"array": "a"}, a=declared((-1, -8), "<f8", bytes(64))), "shape")


def test_pickled_objects_and_text_arrays_are_refused():
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(archive({"array": "a"}, a=pickled.getvalue()), "array of object")
    refused(archive({"array": "a"}, a=npy(np.array(["text"]))), "array of <U4")


def test_too_many_members_and_too_large_files_are_refused(monkeypatch):
    monkeypatch.setattr(recording, "MAXIMUM_MEMBERS", 2)
    refused(archive(a=b"", b=b""), "members")
    monkeypatch.setattr(recording, "MAXIMUM_BYTES", 100)
    refused(bytes(101), "101 bytes, more than 100")


def test_overlapping_members_can_not_unpack_to_more_than_the_file():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("tree.npy", npy(np.zeros(1000, np.uint8)))
        target.filelist += target.filelist * 50  # fifty more names for the same bytes
    refused(file.getvalue(), "larger than the file")


@pytest.mark.parametrize(
    "tree",
    [
        {"array": "missing"},
        {"tensor": "a", "dtype": "load", "strides": [1]},
        {"tensor": "a", "dtype": "float64", "strides": ["x"]},
        {"record": {"type": "int", "text": "", "dtype": "int"}, "values": 2**70, "items": None},
        {"record": {"type": "int", "text": "", "dtype": "int"}, "values": 0.5, "items": None},
        {"record": {"type": "Tensor", "text": "", "dtype": "float32"}, "values": "a", "items": None},
        {"record": {"type": "list", "text": "", "dtype": ""}, "values": None, "items": [5]},
        {"record": {"type": "int"}, "values": None, "items": None},
        {"record": 5, "values": None, "items": None},
        {"dict": [[["unhashable"], 1]]},
        {"no such": "node"},
    ],
    ids=str,
)
def test_a_tree_that_lies_about_its_form_is_refused(tree):
    refused(archive(tree, a=npy(np.zeros(3))), "a record can't be read")


def test_far_strides_do_not_allocate_what_they_span():
    tree = {"tensor": "a", "dtype": "float64", "strides": [10**12]}
    assert from_bytes(archive(tree, a=npy(np.zeros(3)))).tolist() == [0, 0, 0]


def test_a_record_keeps_no_more_text_than_it_may():
    long = Recorded("x" * 9_999, text="y" * 9_999)
    back = from_bytes(to_bytes(long))
    assert len(back.type) == len(back.text) == recording.MAXIMUM_TEXT


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_a_sentence(content):
    refused(content, "a record can't be read")


GOOD = to_bytes([{"x": torch.arange(6.0).reshape(2, 3)}, describe((1, 0.5, [True, torch.ones(2)]))])


@given(place=st.integers(0, len(GOOD) - 1), spoiled=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_a_spoiled_record_is_read_or_refused_in_a_sentence(place, spoiled, cut):
    content = GOOD[:place] + spoiled + (b"" if cut else GOOD[place + len(spoiled) :])
    with contextlib.suppress(CompressionError):
        from_bytes(content)
