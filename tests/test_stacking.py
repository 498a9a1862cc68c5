"""Methods stack: each takes what another has made, and where it can't it says so."""

import pytest
import torch
from test_contract import METHODS, X

from compresslab.errors import CompressionError
from compresslab.models.residual import student

REFUSED = [  # (made by one of these, one of these refuses it, in these words)
    (
        {"factorize by CP", "factorize by CP, depthwise"},  # filters that see one channel each
        {
            "compensated",
            "prune_with_sparse_gpt",
            "quantize_with_data",
            "adaround",
            "factorize by whitened outputs",
        },
        "model must have convolutions of one group here",
    ),
    (
        {
            "store_sparsely",
            "quantize_static",
            "quantize_weights",
            "store_as",
            "quantize_dynamic",
            "quantize_with_data",
            "adaround",
            "prepare and convert",
            "share_weights",
            "quantize_mixed",
        },
        {"add_updates", "merge_updates"},
        "model must have a Linear layer to adapt",
    ),
    ({"add_updates"}, {"remove_channels", "quantize_static"}, "head_a is head.a"),  # until it is merged
]
APPLY = {name: method for name, method, _ in METHODS}


def refusal(first, second):
    """What the second method says of the first one's result, or None."""
    return next((says for made, refuse, says in REFUSED if first in made and second in refuse), None)


@pytest.mark.parametrize("second", APPLY)
@pytest.mark.parametrize("first", APPLY)
def test_a_method_takes_what_another_has_made_or_says_why_not(first, second):
    torch.manual_seed(0)
    made, says = APPLY[first](student().eval()), refusal(first, second)
    if says is None:
        with torch.no_grad():
            assert APPLY[second](made)(X).isfinite().all()
    else:
        with pytest.raises(CompressionError, match=f"^{says}"):
            APPLY[second](made)


def test_every_refusal_names_methods_that_there_are():
    assert {name for made, refuse, _ in REFUSED for name in made | refuse} <= APPLY.keys()
