"""One run of the comparison: what is measured and when, whose knowledge it is, what is kept."""

import pytest
import torch
from safetensors.torch import load_file, save

from compresslab.data.images import Images, Splits
from compresslab.errors import BadSetting, Diverged
from compresslab.experiments.distillation.comparison import runs
from compresslab.experiments.distillation.comparison.learning import Learned
from compresslab.experiments.distillation.comparison.peers_and_self import deep_student
from compresslab.experiments.distillation.comparison.runs import structure, teach, train_teacher
from compresslab.experiments.experiment import TUNING, Context, Run
from compresslab.models.residual import baseline, student
from compresslab.training.loop import accuracy


def drawn(n, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(n) % 10)


DATA = Splits(drawn(300, 0), drawn(600, 1), drawn(100, 2))
SETTINGS = {"task": "all_labels", "thirds": 1, "learning_rate": 0.1, "seed": 0}


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    """Random images in float32, and nothing cached of other tests."""
    monkeypatch.setattr(runs, "fashion_mnist", lambda: DATA)
    monkeypatch.setattr(runs, "fast_precision", lambda: torch.float32)
    for function in (runs._task, runs._knowledge):
        function.cache_clear()
    yield
    for function in (runs._task, runs._knowledge):
        function.cache_clear()


@pytest.fixture
def given(tmp_path):
    """A function that makes what a run is given."""

    def make(key="all_labels/x/0", *, network="", networks=None, data=DATA):
        return Context(data, tmp_path, Run(key, "", network=network), networks or {}, small=True)

    return make


def some_teacher(seed=3):
    torch.manual_seed(seed)
    return baseline().eval()


def test_a_reported_run_says_what_it_reached_and_keeps_its_student(given):
    context = given(network="all_labels_alone")
    found = teach(context, method="alone", **SETTINGS)
    network = student()
    network.load_state_dict(load_file(context.network_path))
    network.eval()
    assert found["test_accuracy"] == accuracy(network, DATA.test)
    assert found["validation_accuracy"] == accuracy(network, DATA.validation)
    assert found["few_validation_accuracy"] == accuracy(network, DATA.validation.first(500))
    assert found["seconds"] >= 0
    assert found["cpu_seconds"] > 0


def test_a_try_looks_at_no_test_image(given):
    blind = Splits(DATA.train, DATA.validation, None)
    found = teach(given(f"{TUNING}/x/0", data=blind), method="mutual", weight=1.0, **SETTINGS)
    assert {"validation_accuracy", "few_validation_accuracy", "ensemble_validation_accuracy"} <= found.keys()
    assert not [name for name in found if "test" in name]
    with pytest.raises(AttributeError):  # a reported one does look
        teach(given(data=blind), method="alone", **SETTINGS)


def test_what_is_beside_the_student_is_measured_and_not_kept(given):
    context = given(network="all_labels_born_again")
    found = teach(context, method="born_again", share=0.9, **SETTINGS)
    assert {"first_test_accuracy", "ensemble_test_accuracy", "test_accuracy"} <= found.keys()
    network = student()
    network.load_state_dict(load_file(context.network_path))
    assert found["test_accuracy"] == accuracy(network.eval(), DATA.test)


def test_a_method_gets_the_outputs_of_the_teacher_that_it_is_given_and_its_cost(given, monkeypatch):
    asked = []

    def learned(task, **settings):
        asked.append((task, settings))
        return Learned(student().eval(), {"more": 1})

    monkeypatch.setattr(runs, "METHODS", {"kd": learned})
    context = given(networks={"teachers/x/0": save(some_teacher().state_dict())})
    found = teach(context, method="kd", temperature=3.0, **SETTINGS | {"learning_rate": 0.3})
    ((task, settings),) = asked
    assert settings == {"seed": 0, "temperature": 3.0}
    assert task.learning_rate == 0.3
    inputs = task.views.inputs()[:20]
    with torch.no_grad():
        torch.testing.assert_close(task.knowledge.logits[:20], some_teacher()(inputs), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(task.teacher(inputs), some_teacher()(inputs), rtol=1e-3, atol=1e-4)
    assert len(task.knowledge.logits) == len(task.views)
    assert found["caching_cpu_seconds"] > 0
    assert found["more"] == 1
    teach(given(), method="kd", **SETTINGS)
    assert asked[1][0].knowledge is None


def test_the_length_is_what_the_run_names(given, monkeypatch):
    lengths = []
    monkeypatch.setattr(
        runs,
        "METHODS",
        {"x": lambda task, **rest: lengths.append(len(task.views)) or Learned(student().eval())},
    )
    for thirds in (1, 3):
        teach(given(), method="x", **SETTINGS | {"thirds": thirds})
    assert lengths[1] == 3 * lengths[0] > 0


def test_a_run_that_diverged_counts_as_the_untrained_student_and_another_error_is_no_result(
    given, monkeypatch
):
    def diverged(task, **settings):
        raise Diverged("the loss is nan in epoch 1")

    monkeypatch.setattr(runs, "METHODS", {"alone": diverged})
    found = teach(given(), method="alone", **SETTINGS)
    assert found["diverged"] == "the loss is nan in epoch 1"
    torch.manual_seed(0)
    assert found["test_accuracy"] == accuracy(student().eval(), DATA.test)
    monkeypatch.undo()
    monkeypatch.setattr(runs, "fashion_mnist", lambda: DATA)
    with pytest.raises(BadSetting, match="learning_rate"):
        teach(given(), method="alone", **SETTINGS | {"learning_rate": -1.0})


def test_a_teachers_record_is_its_card_and_label_smoothing_is_what_it_says(given, monkeypatch):
    asked, fit = [], runs.fit
    monkeypatch.setattr(runs, "fit", lambda *args, **told: asked.append((args, told)) or fit(*args, **told))
    context = given("teachers/x/0", network="x_teacher")
    card = train_teacher(context, epochs=14, learning_rate=0.1, label_smoothing=0.3, seed=0)
    network = baseline()
    network.load_state_dict(load_file(context.network_path))
    assert card["test_accuracy"] == accuracy(network.eval(), DATA.test)
    assert card["validation_accuracy"] == accuracy(network, DATA.validation)
    assert card["cpu_seconds"] > 0
    assert (card["recipes_tried"], card["best_epoch"], len(card["history"])) == (1, 1, 1)
    ((_, train, validation), told) = asked[0]
    assert (train, validation) == (DATA.train, DATA.validation)
    images, labels = DATA.train.inputs()[:50], DATA.train.labels[:50]
    with torch.no_grad():
        logits = network(images)
        wanted = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.3)
        assert told["loss"](network, images, labels) == pytest.approx(wanted.item())


def test_a_stored_network_is_loaded_into_its_own_structure():
    found = [
        structure("x", record)
        for record in ({"label_smoothing": 0.0}, {"method": "kd"}, {"method": "own_teacher"})
    ]
    for network, make in zip(found, (baseline, student, deep_student), strict=True):
        network.load_state_dict(make().state_dict())
