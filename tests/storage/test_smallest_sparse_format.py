"""Forms: bytes that are counted are those that are written, and the smallest form wins where it should."""

import re

import pytest
import torch

from compresslab.errors import CompressionError
from compresslab.storage.sparse import (
    AGAIN,
    BITMAP,
    CSR,
    DENSE,
    FORMS,
    checked_forms,
    from_smallest,
    relative_index,
    sizes,
    to_smallest,
)

ALL = [*FORMS, *(relative_index(bits=bits) for bits in (1, 2, 3))]
every_form = pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)


def drawn(*shape, sparsity, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    kept = torch.rand(shape, generator=generator) >= sparsity
    return (torch.randn(shape, generator=generator) * kept).to(dtype)


@every_form
@pytest.mark.parametrize("shape", [(), (1,), (5, 7), (4, 3, 3, 3), (3, 300), (0, 2), (2, 0)], ids=str)
@pytest.mark.parametrize("sparsity", [0.0, 0.7, 0.97, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_counted_bytes_are_the_bytes_of_the_parts(form, shape, sparsity, dtype):
    tensor = drawn(*shape, sparsity=sparsity, dtype=dtype)
    assert form.storage_bytes(tensor) == sum(part.nbytes for part in form.to_parts(tensor).values())


@every_form
@pytest.mark.parametrize("shape", [(), (5, 7), (4, 3, 3, 3), (3, 300), (0, 2), (2, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_reader_needs_the_shape_alone_and_one_byte_says_the_form(form, shape, dtype):
    tensor = drawn(*shape, sparsity=0.8, dtype=dtype)
    parts = to_smallest(tensor, forms=[form])
    assert sum(part.nbytes for part in parts.values()) == form.storage_bytes(tensor) + 1
    back = from_smallest(parts, shape)
    assert (back.shape, back.dtype) == (tensor.shape, dtype)
    assert torch.equal(back, tensor)


def test_no_two_forms_have_one_number():
    assert len({form.number for form in ALL}) == len(ALL)


def test_a_dense_tensor_is_a_copy_on_both_ways():
    tensor = torch.ones(3)
    parts = to_smallest(tensor, forms=[DENSE])
    tensor.zero_()
    back = from_smallest(parts, (3,))
    parts["values"].zero_()
    assert back.tolist() == [1, 1, 1]


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9, 0.95])
def test_random_places_take_the_bits_that_the_sparse_page_says(sparsity):
    tensor, kept = drawn(400, 500, sparsity=sparsity), 1 - sparsity
    bits = {name: 8 * size / tensor.numel() for name, size in sizes(tensor).items()}
    said = {"dense": 32, "bitmap": 1 + 32 * kept, "CSR": kept * (32 + 16) + 401 * 32 / tensor.numel()}
    said |= {f"{b}-bit gaps": kept * (32 + b) / (1 - sparsity ** (2**b)) for b in range(4, 9)}
    assert bits == pytest.approx(said, rel=0.02)


@pytest.mark.parametrize(
    ("sparsity", "smallest"),
    [
        (0.0, "dense"),
        (0.01, "dense"),
        (0.06, "bitmap"),
        (0.75, "bitmap"),
        (0.85, "5-bit gaps"),
        (0.92, "6-bit gaps"),
        (0.96, "7-bit gaps"),
        (0.98, "8-bit gaps"),
        (0.997, "CSR"),
    ],
)
def test_which_form_wins_at_which_sparsity(sparsity, smallest):
    tensor = drawn(400, 500, sparsity=sparsity)
    counted = sizes(tensor)
    assert min(counted, key=counted.get) == smallest
    assert sum(part.nbytes for part in to_smallest(tensor).values()) == counted[smallest] + 1


def test_the_first_form_wins_a_tie():
    tensor = torch.tensor([1.0, 0.0])  # a bitmap and gaps of four bits: one byte and one value
    for forms in ([BITMAP, relative_index(bits=4)], [relative_index(bits=4), BITMAP]):
        assert to_smallest(tensor, forms=forms)["positions"][0] == forms[0].number


TENSOR = torch.tensor([[0.0, 5.0, 0.0], [7.0, 0.0, 8.0]])
PARTS = to_smallest(TENSOR, forms=[CSR])


def damaged(**others):
    return lambda: from_smallest({**PARTS, **others}, (2, 3))


DAMAGED = {
    "positions must be among the tensor's parts, got values": lambda: from_smallest(
        {"values": TENSOR.flatten()}, (2, 3)
    ),
    "values must be among the tensor's parts, got positions": lambda: from_smallest(
        {"positions": PARTS["positions"]}, (2, 3)
    ),
    "positions must be among the tensor's parts, got none": lambda: from_smallest({}, (2, 3)),
    "positions must be bytes that begin with the number of a form, got 99": damaged(
        positions=torch.tensor([99, 0], dtype=torch.uint8)
    ),
    "positions must be bytes that begin with the number of a form, got (0,) torch.uint8": damaged(
        positions=torch.tensor([], dtype=torch.uint8)
    ),
    "positions must be bytes that begin with the number of a form, got (7,) torch.int64": damaged(
        positions=PARTS["positions"].long()
    ),
    "positions must be 7 bytes (CSR) for 3 values in a tensor (2, 3), got 6": damaged(
        positions=PARTS["positions"][:-1]
    ),
    "positions must be 9 bytes (CSR) for 3 values in a tensor (4, 3), got 7": lambda: from_smallest(
        PARTS, (4, 3)
    ),
    "columns must lie in 0 … 2, got 9 among them": damaged(
        positions=torch.cat([PARTS["positions"][:-1], torch.tensor([9], dtype=torch.uint8)])
    ),
    "values must be 6 in a dense tensor, got 5": lambda: from_smallest(
        {"positions": torch.zeros(1, dtype=torch.uint8), "values": torch.ones(5)}, (2, 3)
    ),
    "values must have one dimension, got (3, 1)": damaged(values=PARTS["values"][:, None]),
}


@pytest.mark.parametrize("says", DAMAGED)
def test_damaged_parts_are_refused_with_their_text(says):
    with pytest.raises(CompressionError, match=f"^{re.escape(f'{says}; {AGAIN}')}$"):
        DAMAGED[says]()


def test_a_scalar_of_values_is_refused_too():
    with pytest.raises(CompressionError, match=r"^values must have one dimension, got \(\)"):
        damaged(values=torch.tensor(1.0))()


WRONG = {
    "bits must be a whole number from 1 to 8, got 9; try 5: up to 31 zeros a gap": lambda: relative_index(
        bits=9
    ),
    "forms must be a list of forms, at least one, got []; try [BITMAP]": lambda: to_smallest(
        TENSOR, forms=[]
    ),
    "forms must be a list of forms, at least one, got Form('CSR'); try [BITMAP]": lambda: checked_forms(CSR),
    "forms must be a list of forms, at least one, got ['CSR']; try [BITMAP]": lambda: checked_forms(["CSR"]),
}


@pytest.mark.parametrize("says", WRONG)
def test_bad_settings_are_refused_with_their_text(says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        WRONG[says]()
