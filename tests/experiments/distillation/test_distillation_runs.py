"""One run: what is looked at and when, where its teacher comes from, what is kept."""

import pytest
import torch
from safetensors.torch import load_file, save

from compresslab.data.images import Images, Splits
from compresslab.errors import BadSetting, Diverged
from compresslab.experiments.distillation import runs
from compresslab.experiments.distillation.methods import HINT, LAYERS
from compresslab.experiments.distillation.runs import (
    SEEN,
    SEEN_TEACHER,
    STUDENTS,
    TRANSFORMER,
    UNSEEN,
    embed,
    setting_for,
    teach,
    teach_seen_classes,
    teach_transformer,
    train_seen_classes_teacher,
)
from compresslab.experiments.distillation.transformer import deep_transformer
from compresslab.experiments.experiment import TUNING, Context, Run
from compresslab.models.residual import baseline, student, teacher
from compresslab.techniques.distillation.response import UNLABELLED
from compresslab.training.loop import accuracy


def drawn(n, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(n) % 10)


DATA = Splits(drawn(400, 0), drawn(100, 1), drawn(100, 2))
SHORT = {"learning_rate": 0.1, "seed": 0}


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    """Random images, and networks of random weights for the trained ones; nothing cached of other tests."""

    def load(name):
        torch.manual_seed(0)
        return {"teacher": teacher, "student": student}[name]().eval()

    for function in (runs._setting, runs._knowledge):
        function.cache_clear()
    monkeypatch.setattr(runs, "fashion_mnist", lambda: DATA)
    monkeypatch.setattr(runs, "load_baseline", load)
    monkeypatch.setattr(runs, "fast_precision", lambda: torch.float32)
    yield
    for function in (runs._setting, runs._knowledge):
        function.cache_clear()


@pytest.fixture
def given(tmp_path):
    """A function that makes what a run is given."""

    def make(key="methods/x/0", *, network="", networks=None, data=DATA):
        return Context(data, tmp_path, Run(key, "", network=network), networks or {}, small=True)

    return make


def test_a_reported_run_says_what_it_reached_and_keeps_its_student(given):
    context = given(network="methods_alone")
    torch.manual_seed(0)
    found = teach(context, method="alone", **SHORT)
    network = student()
    network.load_state_dict(load_file(context.network_path))
    assert found["test_accuracy"] == accuracy(network.eval(), DATA.test)
    assert found["validation_accuracy"] == accuracy(network, DATA.validation)
    assert found["seconds"] >= 0


def test_only_a_network_that_the_plan_names_is_kept(given, tmp_path):
    teach(given("methods/alone/1"), method="alone", learning_rate=0.1, seed=1)
    assert list(tmp_path.iterdir()) == []


def test_a_try_looks_at_no_test_image(given, tmp_path):
    blind = Splits(DATA.train, DATA.validation, None)
    found = teach(given(f"{TUNING}/alone/0.05/0", data=blind), method="alone", **SHORT)
    assert "validation_accuracy" in found
    assert not {"test_accuracy", "recall_at_1", "one_shot_accuracy"} & found.keys()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AttributeError):  # a reported one does look
        teach(given(data=blind), method="alone", **SHORT)


def test_offline_methods_get_the_knowledge_of_the_teacher_named(given):
    assert setting_for(given(), "mutual", 0.1).knowledge is None
    kd = setting_for(given(), "kd", 0.1)
    wanted = runs.load_baseline("teacher")(kd.views.inputs()[:5])
    torch.testing.assert_close(kd.taught.logits[:5], wanted, rtol=1e-3, atol=1e-4)
    assert list(kd.taught.attention) == list(LAYERS.values())
    assert list(kd.taught.features) == []
    other = setting_for(given(), "kd", 0.1, teacher="student")
    wanted = runs.load_baseline("student")(kd.views.inputs()[:5])
    torch.testing.assert_close(other.taught.logits[:5], wanted, rtol=1e-3, atol=1e-4)
    hints = setting_for(given(), "fitnet", 0.1).taught.features
    assert hints[HINT[1]].shape == (300, 96, 7, 7)


def test_a_student_learns_at_its_own_rate(given):
    assert setting_for(given(), "alone", 0.3).learning_rate == 0.3


def test_held_out_classes_are_seen_by_nobody_before_the_test(given):
    context = given("held_out/kd/0", networks={SEEN_TEACHER: save(baseline().state_dict())})
    setting = setting_for(context, "kd", 0.1, teacher=SEEN_TEACHER)
    assert len(setting.taught.logits) == len(setting.views)
    for images in (setting.views, setting.labelled, setting.validation):
        assert set(images.labels.tolist()) <= {*SEEN, UNLABELLED}
    mine = {bytes(p.numpy().tobytes()) for p in setting.unlabelled.pixels}
    allowed = DATA.train.pixels[torch.isin(DATA.train.labels, torch.tensor(SEEN))]
    assert mine <= {bytes(p.numpy().tobytes()) for p in allowed}
    found = teach_seen_classes(given("held_out/alone/0"), method="alone", **SHORT)
    assert "test_accuracy" not in found
    assert 0 <= found["recall_at_1"] <= 1
    assert 0 <= found["one_shot_accuracy"] <= 1


def test_the_teacher_of_the_seen_classes_is_given_no_other(given, monkeypatch):
    asked, train = [], runs.fit
    monkeypatch.setattr(runs, "fit", lambda *args, **told: asked.append(args) or train(*args, **told))
    context = given(network=SEEN_TEACHER)
    assert train_seen_classes_teacher(context, epochs=8, seed=0) == {}
    assert all(set(images.labels.tolist()) == set(SEEN) for images in asked[0][1:])
    baseline().load_state_dict(load_file(context.network_path))


def test_classes_are_seen_or_unseen():
    assert sorted(SEEN + UNSEEN) == list(range(10))


def test_what_the_settings_name_is_what_is_taught(given, monkeypatch):
    asked = []

    def learned(*args, **settings):
        asked.append((args[1:], settings))
        return runs.Learned(student().eval(), {"more": 1})

    for name in ("learn_alone", "learn_together", "learn_inside"):
        monkeypatch.setattr(runs, name, learned)
    method = {"run": staticmethod(learned), "strength": 2.0, "strategy": "online"}
    monkeypatch.setattr(runs, "METHODS", {"mutual": type("Method", (), method)})
    rest = {"learning_rate": 0.1, "seed": 3}
    for settings in (
        {"method": "alone"},
        {"method": "alone", "longer": 3},
        {"method": "alone", "student": "half"},
        {"method": "mutual"},
        {"method": "mutual", "peer": "double"},
    ):
        assert teach(given(), **settings, **rest)["more"] == 1
    networks = {TRANSFORMER: save(deep_transformer().state_dict())}
    assert teach_transformer(given(networks=networks), method="tinybert", **rest)["more"] == 1
    plain = STUDENTS["student"]
    assert asked[:5] == [
        ((plain,), {"seed": 3, "longer": 1}),
        ((plain,), {"seed": 3, "longer": 3}),
        ((STUDENTS["half"],), {"seed": 3, "longer": 1}),
        ((plain,), {"strength": 2.0, "seed": 3}),
        ((plain, STUDENTS["double"]), {"strength": 2.0, "seed": 3}),
    ]
    assert asked[5][1] == {"answers_alone": False, "seed": 3}


def test_a_run_that_diverged_counts_as_the_untrained_student(given, monkeypatch):
    def diverged(*args, **settings):
        raise Diverged("the loss is nan in epoch 1")

    monkeypatch.setattr(runs, "learn_alone", diverged)
    found = teach(given(), method="alone", **SHORT)
    assert found["diverged"] == "the loss is nan in epoch 1"
    torch.manual_seed(0)
    assert found["test_accuracy"] == accuracy(student().eval(), DATA.test)


def test_another_error_is_no_result(given):
    with pytest.raises(BadSetting, match="learning_rate"):
        teach(given(), method="alone", learning_rate=-1.0, seed=0)


def test_the_family_comes_in_three_sizes():
    sizes = [sum(p.numel() for p in make().parameters()) for make in STUDENTS.values()]
    assert list(STUDENTS) == ["half", "student", "double"]
    assert sizes == sorted(sizes)
    assert STUDENTS["student"] is student


def test_an_embedding_is_what_the_last_layer_reads():
    network = student().train()
    found = embed(network, DATA.test)
    with torch.no_grad():
        wanted = network.eval()(DATA.test.inputs())
        torch.testing.assert_close(network.head(found), wanted, rtol=1e-4, atol=1e-5)
    assert found.shape == (100, 32)
    assert not found.requires_grad
