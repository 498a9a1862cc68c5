"""Modules replaced where they stand: everywhere, once, the innermost first."""

import pytest
from torch import nn

from compresslab.models.surgery import replace_modules


def test_a_module_in_two_places_is_made_once_by_its_first_name_and_stands_in_both():
    shared, asked = nn.Linear(2, 2), []

    def make(name, module):
        if isinstance(module, nn.Linear):
            asked.append(name)
            return nn.Identity()
        return None

    model = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared))
    changed = replace_modules(model, make)
    assert changed is model
    assert asked == ["0"]
    assert model[0] is model[1][1]
    assert isinstance(model[0], nn.Identity)


def test_what_is_inside_comes_before_it_and_the_model_itself_last():
    names = []
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.ReLU())
    assert replace_modules(model, lambda name, module: names.append(name)) is model
    assert names == ["0.0", "0.1", "0", "1", ""]


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))])
def test_a_model_may_be_replaced_itself(model):
    other = nn.Identity()
    assert replace_modules(model, lambda name, module: None if name else other) is other
