"""The import trap of torchvision is worked around for its one reason; one that loads is left alone."""

import importlib
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from compresslab.data import torchvision_import as vision

TRAP = "operator torchvision::nms does not exist"


@pytest.fixture
def importing(monkeypatch):
    """Lets the next imports end in the given outcomes, one after the other; what is declared is listed."""
    declared = []

    class Library:
        def __init__(self, name, kind):
            declared.append((name, kind))

        def define(self, schema):
            declared.append(schema)

    def prepare(*outcomes):
        remaining = list(outcomes)

        def import_module(name):
            assert name == "torchvision"
            outcome = remaining.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(importlib, "import_module", import_module)
        monkeypatch.setattr(torch.library, "Library", Library)
        monkeypatch.setattr(vision, "_declared", [])
        return declared

    with monkeypatch.context() as context:  # what the half-imported torchvision left is put back afterwards
        context.setattr(sys, "modules", dict(sys.modules))
        yield prepare


def test_a_torchvision_that_loads_is_not_touched(importing):
    whole = ModuleType("torchvision")
    declared = importing(whole)
    assert vision.import_torchvision() is whole
    assert vision._declared == declared == []


def test_the_two_operators_are_declared_where_they_are_missing(importing):
    whole = ModuleType("torchvision")
    declared = importing(RuntimeError(TRAP), whole)
    assert vision.import_torchvision() is whole
    assert declared[0] == ("torchvision", "DEF")
    assert [schema.partition("(")[0] for schema in declared[1:]] == ["nms", "qnms"]
    assert len(vision._declared) == 1, "a Library that is collected takes its operators with it"


def test_the_half_imported_torchvision_is_forgotten_before_the_second_try(importing):
    sys.modules |= {"torchvision": ModuleType("half"), "torchvision.ops": ModuleType("half")}
    sys.modules["torchvisionary"] = ModuleType("another")
    importing(RuntimeError(TRAP), ModuleType("torchvision"))
    vision.import_torchvision()
    assert not {"torchvision", "torchvision.ops"} & set(sys.modules)
    assert "torchvisionary" in sys.modules


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA driver too old"), ImportError("No module named torchvision")]
)
def test_any_other_failure_is_passed_on(importing, error):
    declared = importing(error)
    with pytest.raises(type(error), match=str(error)):
        vision.import_torchvision()
    assert declared == []


def test_data_sets_and_transforms_import_in_a_fresh_process():
    code = (
        "from compresslab.data.torchvision_import import import_torchvision, operators_load; "
        "import_torchvision(); "
        "from torchvision import datasets, models, utils; from torchvision.transforms import v2; "
        "print(operators_load(), datasets.FashionMNIST.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split()[0] in ("True", "False")
    assert done.stdout.split()[1] == "FashionMNIST"
