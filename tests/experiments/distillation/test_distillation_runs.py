"""One run: what is looked at and when, where its teacher comes from, what is kept."""

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    Job,
    embed,
    perform,
    setting_of,
)
from compresslab.experiments.distillation.transformer import deep_transformer
from compresslab.models.residual import baseline, student, teacher
from compresslab.techniques.distillation.response import UNLABELLED
from compresslab.training.loop import accuracy


def drawn(n, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(n) % 10)


DATA = Splits(drawn(400, 0), drawn(100, 1), drawn(100, 2))


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    """Random images, and networks of random weights for the trained ones; nothing cached of other tests."""

    def load(name):
        torch.manual_seed(0)
        return {"teacher": teacher, "student": student}[name]().eval()

    cached = (runs._data, runs._setting, runs._knowledge)
    for function in cached:
        function.cache_clear()
    monkeypatch.setattr(runs, "fashion_mnist", lambda: DATA)
    monkeypatch.setattr(runs, "load_baseline", load)
    monkeypatch.setattr(runs, "fast_precision", lambda: torch.float32)
    yield
    for function in cached:
        function.cache_clear()


def job(group="methods", method="alone", seed=0, rate=0.1, **more):
    return Job(group, method, seed, rate, **more)


def test_a_run_is_called_by_what_tells_it_from_the_others():
    assert job().key == "methods/alone/0"
    assert job("tries", "alone", 100, 0.05).key == "tries/alone/0.05/100"
    assert job("labels", "kd", 1, labels=2000).key == "labels/kd/2000/1"
    assert job("students", "kd", 1, student="half").key == "students/kd/half/1"
    assert job("teachers", "kd", 1, teacher="mlp").key == "teachers/kd/mlp/1"
    assert job("peers", "mutual", 2, peer="double").key == "peers/mutual/double/2"
    assert job("held_out", "rkd", 4, teacher=SEEN_TEACHER).key == "held_out/rkd/4"


def test_a_reported_run_says_what_it_reached_and_keeps_its_student(tmp_path):
    found = perform(job(), tmp_path / "new", small=True)
    network = student()
    network.load_state_dict(load_file(tmp_path / "new" / "methods_alone.safetensors"))
    assert found["test_accuracy"] == accuracy(network.eval(), DATA.test)
    assert found["validation_accuracy"] == accuracy(network, DATA.validation)
    assert found["learning_rate"] == 0.1
    assert found["seconds"] >= 0


def test_what_is_kept_is_of_one_seed(tmp_path):
    perform(job(seed=1), tmp_path, small=True)
    assert list(tmp_path.iterdir()) == []


def test_a_try_looks_at_no_test_image(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_data", lambda small: Splits(DATA.train, DATA.validation, None))
    found = perform(job("tries", "alone", 0, 0.05), tmp_path, small=True)
    assert "validation_accuracy" in found
    assert not {"test_accuracy", "recall_at_1", "one_shot_accuracy"} & found.keys()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AttributeError):  # a reported one does look
        perform(job(), tmp_path, small=True)


def test_offline_methods_get_the_knowledge_of_the_teacher_named(tmp_path):
    plain = setting_of(job(method="mutual"), tmp_path, small=True)
    assert plain.knowledge is None
    kd = setting_of(job(method="kd"), tmp_path, small=True)
    wanted = runs.load_baseline("teacher")(kd.views.inputs()[:5])
    torch.testing.assert_close(kd.taught.logits[:5], wanted, rtol=1e-3, atol=1e-4)
    assert list(kd.taught.attention) == list(LAYERS.values())
    assert list(kd.taught.features) == []
    other = setting_of(job("teachers", "kd", teacher="student"), tmp_path, small=True)
    wanted = runs.load_baseline("student")(kd.views.inputs()[:5])
    torch.testing.assert_close(other.taught.logits[:5], wanted, rtol=1e-3, atol=1e-4)
    hints = setting_of(job(method="fitnet"), tmp_path, small=True).taught.features
    assert hints[HINT[1]].shape == (300, 96, 7, 7)


def test_a_job_learns_at_its_own_rate(tmp_path):
    assert setting_of(Job("tries", "alone", 0, learning_rate=0.3), tmp_path, small=True).learning_rate == 0.3


def test_held_out_classes_are_seen_by_nobody_before_the_test(tmp_path):
    save_file(baseline().state_dict(), tmp_path / SEEN_TEACHER)
    setting = setting_of(job("held_out", "kd", teacher=SEEN_TEACHER), tmp_path, small=True)
    assert len(setting.taught.logits) == len(setting.views)
    for images in (setting.views, setting.labelled, setting.validation):
        assert set(images.labels.tolist()) <= {*SEEN, UNLABELLED}
    mine = {bytes(p.numpy().tobytes()) for p in setting.unlabelled.pixels}
    allowed = DATA.train.pixels[torch.isin(DATA.train.labels, torch.tensor(SEEN))]
    assert mine <= {bytes(p.numpy().tobytes()) for p in allowed}
    found = perform(job("held_out", "alone"), tmp_path, small=True)
    assert "test_accuracy" not in found
    assert 0 <= found["recall_at_1"] <= 1
    assert 0 <= found["one_shot_accuracy"] <= 1
    assert (tmp_path / "held_out_alone.safetensors").exists()


def test_classes_are_seen_or_unseen():
    assert sorted(SEEN + UNSEEN) == list(range(10))


def test_what_a_job_names_is_what_is_taught(tmp_path, monkeypatch):
    asked = []

    def learned(*args, **settings):
        asked.append((args[1:], settings))
        return runs.Learned(student().eval(), {"more": 1})

    monkeypatch.setattr(runs, "learn_alone", learned)
    monkeypatch.setattr(runs, "learn_together", learned)
    monkeypatch.setattr(runs, "learn_inside", learned)
    method = {"run": staticmethod(learned), "strength": 2.0, "strategy": "online"}
    monkeypatch.setattr(runs, "METHODS", {"mutual": type("Method", (), method)})
    save_file(deep_transformer().state_dict(), tmp_path / TRANSFORMER)
    for one in (
        job("tries", "alone", 3),
        job("methods", "alone_long", 3, longer=3),
        job("students", "alone", 3, student="half"),
        job("methods", "mutual", 3),
        job("peers", "mutual", 3, peer="double"),
        job("transformers", "tinybert", 3),
    ):
        assert perform(one, tmp_path, small=True)["more"] == 1
    plain = STUDENTS["student"]
    assert asked[:5] == [
        ((plain,), {"seed": 3, "longer": 1}),
        ((plain,), {"seed": 3, "longer": 3}),
        ((STUDENTS["half"],), {"seed": 3, "longer": 1}),
        ((plain,), {"strength": 2.0, "seed": 3}),
        ((plain, STUDENTS["double"]), {"strength": 2.0, "seed": 3}),
    ]
    assert asked[5][1] == {"answers_alone": False, "seed": 3}


def test_a_run_that_diverged_counts_as_the_untrained_student(tmp_path, monkeypatch):
    def diverged(*args, **settings):
        raise Diverged("the loss is nan in epoch 1; it must stay finite: try a tenth")

    monkeypatch.setattr(runs, "learn_alone", diverged)
    found = perform(job(), tmp_path, small=True)
    assert "the loss is nan" in found["diverged"]
    torch.manual_seed(0)
    assert found["test_accuracy"] == accuracy(student().eval(), DATA.test)


def test_another_error_is_no_result(tmp_path, monkeypatch):
    def broken(*args, **settings):
        raise BadSetting("learning_rate must be a positive number, got -1")

    monkeypatch.setattr(runs, "learn_alone", broken)
    with pytest.raises(BadSetting, match="learning_rate must be a positive number"):
        perform(job(), tmp_path, small=True)


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
