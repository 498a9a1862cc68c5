"""Every compared method: its loss by hand, the student alone is kept, and all take equally many steps."""

import dataclasses
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.data.images import Images, Splits, normalize
from compresslab.errors import BadSetting
from compresslab.experiments.distillation.comparison import feature_and_relation, peers_and_self, response
from compresslab.experiments.distillation.comparison.feature_and_relation import ATTENTION
from compresslab.experiments.distillation.comparison.learning import Learned
from compresslab.experiments.distillation.comparison.methods import METHODS
from compresslab.experiments.distillation.comparison.peers_and_self import (
    GENERATIONS,
    ROUNDS,
    by_peers,
    deep_student,
    generations,
    noisy_student,
)
from compresslab.experiments.distillation.comparison.task import Size, draw_task
from compresslab.models.residual import baseline, student
from compresslab.models.surgery import layer_outputs
from compresslab.techniques.distillation import feature, offline, relation
from compresslab.techniques.distillation.offline import know
from compresslab.techniques.distillation.response import UNLABELLED, decoupled_loss, kd_loss
from compresslab.training.loop import accuracy

KD = {"temperature": 2.0, "share": 0.9}
SETTINGS = {
    "alone": {},
    "hard_labels": {},
    "kd": KD,
    "permuted": KD,
    "dkd": {"temperature": 2.0, "beta": 4.0},
    "fitnet": {"weight": 1.0},
    "fitnet_in_stages": KD,
    "attention": {"weight": 10.0},
    "rkd": {"weight": 10.0},
    "pkt": {"weight": 300.0},
    "sp": {"weight": 3000.0},
    "mutual": {"weight": 1.0},
    "born_again": {"share": 0.9},
    "deep_alone": {},
    "own_teacher": {"share": 0.5},
    "noisy_student": {"threshold": 0.1},
}
TERMS = ["fitnet", "attention", "rkd", "pkt", "sp"]
TAUGHT = ["hard_labels", "kd", "permuted", "dkd", "fitnet_in_stages", *TERMS]
DEEP = ["deep_alone", "own_teacher"]
every_method = pytest.mark.parametrize("name", SETTINGS)
STEPS = 3  # of the task below


def drawn(n, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.randint(10, (n,), generator=generator))


@functools.cache
def task(seed=7):
    """384 views, a third of them labelled, and a teacher of random weights."""
    data = Splits(drawn(192, 0), drawn(30, 1), None)
    untaught = draw_task(data, Size(64, 128, 2, 2), thirds=1)
    torch.manual_seed(seed)
    teacher = baseline().eval()
    knowledge = know(teacher, untaught.views, attention=list(ATTENTION.values()))
    return dataclasses.replace(untaught, knowledge=knowledge, teacher=teacher)


@functools.cache
def run(name, *, seed=0):
    return METHODS[name](task(), seed=seed, **SETTINGS[name])


def equal(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture
def steps(monkeypatch):
    """How many steps each training took."""
    counts, fit = [], offline.fit

    def counting(*args, **settings):
        counts.append(0)

        def step(model):
            counts[-1] += 1

        return fit(*args, after_step=step, **settings)

    for module in (offline, peers_and_self):
        monkeypatch.setattr(module, "fit", counting)
    return counts


def test_every_method_is_tried_here():
    assert SETTINGS.keys() == METHODS.keys()


@every_method
def test_what_is_kept_is_the_student_alone(name):
    network, plain = run(name).network, deep_student() if name in DEEP else student()
    shapes = [{n: t.shape for n, t in each.state_dict().items()} for each in (network, plain)]
    assert shapes[0] == shapes[1]
    assert not network.training


@every_method
def test_learning_moves_every_layers_weights(name):
    torch.manual_seed(0)
    before, after = deep_student() if name in DEEP else student(), run(name).network
    for (n, one), other in zip(before.named_parameters(), after.parameters(), strict=True):
        assert not torch.equal(one, other), n


@every_method
def test_a_seed_gives_the_same_student_again_and_another_seed_another(name):
    assert equal(run(name).network, METHODS[name](task(), seed=0, **SETTINGS[name]).network)
    assert not equal(run(name).network, run(name, seed=1).network)


@pytest.mark.parametrize(
    ("name", "setting"), [(name, s) for name in SETTINGS for s in SETTINGS[name] if s != "threshold"]
)
def test_every_tuned_setting_makes_a_difference(name, setting):
    other = SETTINGS[name] | {setting: SETTINGS[name][setting] / 2}
    assert not equal(run(name).network, METHODS[name](task(), seed=0, **other).network)


@pytest.mark.parametrize("name", TAUGHT)
def test_another_teacher_makes_another_student(name):
    assert not equal(run(name).network, METHODS[name](task(8), seed=0, **SETTINGS[name]).network)


@pytest.mark.parametrize("name", TAUGHT)
def test_without_a_teacher_there_is_nothing_to_learn(name):
    untaught = dataclasses.replace(task(), knowledge=None, teacher=None)
    with pytest.raises(
        BadSetting, match=r"^(knowledge must be a teacher's outputs|teacher must be a Residual)"
    ):
        METHODS[name](untaught, seed=0, **SETTINGS[name])


@every_method
def test_each_training_takes_as_many_steps(name, steps):
    METHODS[name](task(), seed=0, **SETTINGS[name])
    trainings = {"born_again": GENERATIONS + 1, "noisy_student": ROUNDS + 1}.get(name, 1)
    expected = [1, 2] if name == "fitnet_in_stages" else [STEPS] * trainings
    assert steps == expected


def test_the_student_alone_can_take_longer(steps):
    response.alone(task(), seed=0, longer=3)
    assert steps == [3 * STEPS]


# the losses


INDEX = torch.tensor([350, 3, 130, 300, 17, 200, 64, 259])  # labelled and unlabelled views, in no order


def lesson(name, monkeypatch, **settings):
    """The loss of a batch as the method computes it, by a student in evaluation mode; and that student."""
    kept = {}

    def learn(given, pupil, views, loss, *, seed, passes=1):
        pupil.eval()
        kept["loss"] = loss(pupil, normalize(views.pixels[INDEX]), INDEX).detach()
        kept["pupil"] = pupil
        return pupil.student

    for module in (response, feature_and_relation):
        monkeypatch.setattr(module, "learn", learn)
    METHODS[name](task(), seed=0, **settings)
    return kept["loss"], kept["pupil"]


@torch.no_grad()
def outputs(pupil, layers=("pool",), views=None):
    views = task().views if views is None else views
    return layer_outputs(pupil.student, normalize(views.pixels[INDEX]), layers)


def test_the_student_alone_learns_from_labelled_views_smoothed_or_not(monkeypatch):
    index = INDEX
    for smoothing in (0.0, 0.2):
        value, pupil = lesson("alone", monkeypatch, smoothing=smoothing)
        logits, _ = outputs(pupil, views=task().labelled)
        wanted = F.cross_entropy(logits, task().labelled.labels[index], label_smoothing=smoothing)
        torch.testing.assert_close(value, wanted)


def test_hard_labels_are_the_teachers_whatever_the_label(monkeypatch):
    value, pupil = lesson("hard_labels", monkeypatch)
    answers = task().knowledge.logits[INDEX].argmax(dim=1)
    torch.testing.assert_close(value, F.cross_entropy(outputs(pupil)[0], answers))
    assert not torch.equal(answers, task().views.labels[INDEX])


def test_kd_is_its_own_and_permuted_the_same_of_other_logits(monkeypatch):
    labels, told = task().views.labels[INDEX], task().knowledge.logits[INDEX]
    value, pupil = lesson("kd", monkeypatch, temperature=3.0, share=0.7)
    torch.testing.assert_close(value, kd_loss(outputs(pupil)[0], told, labels, temperature=3.0, weight=0.7))
    asked = []
    monkeypatch.setattr(response, "kd", lambda given, **settings: asked.append((given, settings)))
    response.permuted(task(), seed=3, temperature=3.0, share=0.7)
    ((given, settings),) = asked
    assert settings == {"seed": 3, "temperature": 3.0, "share": 0.7}
    assert not torch.equal(given.knowledge.logits, task().knowledge.logits)
    same = [known.sort(dim=1).values for known in (given.knowledge.logits, task().knowledge.logits)]
    assert torch.equal(*same)


def test_dkd_warms_up(monkeypatch):
    labels, told = task().views.labels[INDEX], task().knowledge.logits[INDEX]
    hard, values = None, []

    def learn(given, pupil, views, loss, *, seed, passes=1):
        nonlocal hard
        pupil.eval()
        for _ in range(3):
            values.append(loss(pupil, normalize(views.pixels[INDEX]), INDEX).item())
        logits = outputs(pupil)[0]
        hard = F.cross_entropy(logits, labels, ignore_index=UNLABELLED).item()
        values.append(decoupled_loss(logits, told, labels, temperature=2.0, beta=4.0).item())
        return pupil.student

    monkeypatch.setattr(response, "learn", learn)
    monkeypatch.setattr(response, "DKD_WARM_UP", 2 / STEPS)
    response.dkd(task(), seed=0, temperature=2.0, beta=4.0)
    *reached, whole = values
    assert [value - hard for value in reached] == pytest.approx([whole / 2, whole, whole], rel=1e-4)


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_added_to_the_cross_entropy_or_to_kd(name, monkeypatch):
    labels, told = task().views.labels[INDEX], task().knowledge.logits[INDEX]
    zero, one, three = (lesson(name, monkeypatch, weight=weight)[0] for weight in (0.0, 1.0, 3.0))
    logits, _ = outputs(lesson(name, monkeypatch, weight=1.0)[1])
    torch.testing.assert_close(zero, F.cross_entropy(logits, labels, ignore_index=UNLABELLED))
    torch.testing.assert_close(three - zero, 3 * (one - zero), rtol=1e-3, atol=1e-5)
    both = lesson(name, monkeypatch, weight=1.0, temperature=3.0, share=0.7)[0]
    response_alone = kd_loss(logits, told, labels, temperature=3.0, weight=0.7)
    torch.testing.assert_close(both - (one - zero), response_alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_the_term_compares_the_same_views_of_student_and_teacher(name, monkeypatch):
    zero, one = (lesson(name, monkeypatch, weight=weight)[0] for weight in (0.0, 1.0))
    pupil, known = lesson(name, monkeypatch, weight=1.0)[1], task().knowledge
    mine, theirs = outputs(pupil)[1][0], known.embeddings[INDEX]
    with torch.no_grad():
        _, teachers = layer_outputs(
            task().teacher, normalize(task().views.pixels[INDEX]), ["blocks.2", "blocks.4"]
        )
    if name == "fitnet":
        with torch.no_grad():
            wanted = F.mse_loss(pupil.companion(outputs(pupil, ["blocks.0"])[1][0]), teachers[0])
    elif name == "attention":
        pairs = zip(outputs(pupil, ["blocks.0", "blocks.1"])[1], teachers, strict=True)
        wanted = sum(feature.attention_loss(own, other) for own, other in pairs)
    elif name == "rkd":
        wanted = relation.rkd_distance_loss(mine, theirs) + 2 * relation.rkd_angle_loss(mine, theirs)
    else:
        wanted = {"pkt": relation.pkt_loss, "sp": relation.similarity_loss}[name](mine, theirs)
    torch.testing.assert_close(one - zero, wanted, rtol=2e-3, atol=1e-5)


def test_fitnets_first_stage_is_the_hint_alone_and_its_second_kd_on_the_other_views(monkeypatch):
    told = []

    def learn(given, pupil, views, loss, *, seed, passes=1):
        pupil.eval()
        index = torch.arange(8)
        inputs = normalize(views.pixels[index])
        told.append((views, loss(pupil, inputs, index).detach(), pupil, inputs))
        return pupil.student

    monkeypatch.setattr(feature_and_relation, "learn", learn)
    feature_and_relation.fitnet_in_stages(task(), seed=0, **KD)
    (first, hint, pupil, inputs), (second, by_kd, _, others) = told
    with torch.no_grad():
        _, (mine,) = layer_outputs(pupil.student, inputs, ["blocks.0"])
        _, (theirs,) = layer_outputs(task().teacher, inputs, ["blocks.2"])
        torch.testing.assert_close(hint, F.mse_loss(pupil.companion(mine), theirs))
        logits, teachers = pupil.student(others), task().teacher(others)
    wanted = kd_loss(logits, teachers, second.labels[:8], temperature=2.0, weight=0.9)
    torch.testing.assert_close(by_kd, wanted, rtol=1e-4, atol=1e-5)
    assert (len(first), len(second)) == (128, 256)
    both = torch.cat([first.pixels, second.pixels])
    rows = [sorted(p.numpy().tobytes() for p in pixels) for pixels in (both, task().views.pixels)]
    assert rows[0] == rows[1]  # each view once
    assert (first.labels != UNLABELLED).any()
    assert (first.labels == UNLABELLED).any()


# peers, generations, exits


def test_peers_learn_from_labels_and_on_all_images_from_each_other(monkeypatch):
    kept = {}

    def on_views(given, model, loss, seed):
        model.eval()
        kept["loss"] = loss(model, normalize(given.views.pixels[INDEX]), INDEX).detach()
        kept["peers"] = model.students
        return model

    monkeypatch.setattr(peers_and_self, "_on_views", on_views)
    labels, inputs = task().views.labels[INDEX], normalize(task().views.pixels[INDEX])
    for count, ensemble in ((2, False), (4, False), (4, True)):
        by_peers(task(), seed=0, weight=0.5, peers=count, ensemble=ensemble)
        with torch.no_grad():
            logits = [peer(inputs) for peer in kept["peers"]]
        probabilities = torch.stack([z.softmax(dim=1) for z in logits])
        wanted = 0
        for k, z in enumerate(logits):
            others = torch.cat([probabilities[:k], probabilities[k + 1 :]])
            others = others.mean(dim=0, keepdim=True) if ensemble else others
            taught = [F.kl_div(z.log_softmax(dim=1), p, reduction="batchmean") for p in others]
            wanted += F.cross_entropy(z, labels, ignore_index=UNLABELLED) + 0.5 * sum(taught) / len(taught)
        assert len(logits) == count
        torch.testing.assert_close(kept["loss"], wanted, rtol=1e-4, atol=1e-5)


def test_the_first_peer_is_the_student_and_the_ensemble_is_measured():
    learned = run("mutual")
    assert learned.beside.keys() == {"ensemble"}
    assert learned.beside["ensemble"].students[0] is learned.network


def test_generations_start_from_fresh_weights_and_are_measured_together(monkeypatch):
    started, fresh = [], peers_and_self.fresh
    monkeypatch.setattr(peers_and_self, "fresh", lambda seed: started.append(seed) or fresh(seed))
    learned = generations(task(), seed=2, share=0.9)
    assert started == [1002, 2002]
    first = response.alone(task(), seed=2).network
    assert equal(learned.beside["first"], first)
    assert len(learned.beside["ensemble"].students) == GENERATIONS + 1
    assert accuracy(learned.beside["ensemble"], task().validation) >= 0


def test_exits_are_reported_and_left_behind():
    assert run("own_teacher").details["exit_parameters"] > 0
    assert len(deep_student().blocks) == 4


# noisy student


class Reader(nn.Module):
    """Images of one grey, 10 · number: sure that the class is number mod 10; unsure from number 14 on."""

    def __init__(self):
        super().__init__()
        self.pool = nn.Flatten()

    def forward(self, x):
        numbers = ((self.pool(x).median(dim=1).values * 0.3530 + 0.2860) * 25.5).round().long()
        return F.one_hot(numbers % 10, 10) * torch.where(numbers < 14, 20.0, 1.0)[:, None]


def test_rounds_are_balanced_noisy_and_three(monkeypatch):
    greys = torch.arange(0, 200, 10, dtype=torch.uint8).reshape(20, 1, 1, 1).repeat(1, 1, 28, 28)
    images = Images(greys, (torch.arange(20) + 1) % 10)  # the true labels are not those that Reader says
    given = draw_task(Splits(images, images, None), Size(6, 12, 3, 2), thirds=1)
    monkeypatch.setattr(peers_and_self, "alone", lambda *a, **s: Learned(Reader()))
    rounds, pupils, seeds = [], [], []

    def learn(task, pupil, views, loss, *, seed):
        rounds.append(views)
        pupils.append(pupil)
        seeds.append(seed)
        return Reader()

    monkeypatch.setattr(peers_and_self, "learn", learn)
    assert noisy_student(given, seed=5, threshold=0.1).details == {"pseudo_labelled": 1.0}
    for each in (rounds, pupils, seeds):
        each.clear()
    learned = noisy_student(given, seed=5, threshold=0.9)
    assert learned.details == {"pseudo_labelled": pytest.approx(8 / 12)}
    assert seeds == [1005, 2005, 3005]
    for views in rounds:
        numbers = views.pixels[:, 0, 2:26, 2:26].flatten(1).mode(dim=1).values // 10
        known, pseudo = views.labels[:18].tolist(), views.labels[18:]
        assert known == 3 * [1, 2, 3, 4, 5, 6]
        assert torch.equal(pseudo, numbers[18:] % 10)  # what Reader says, on the views of that very image
        assert (numbers[18:] < 14).all()
        assert set(torch.bincount(pseudo, minlength=10).tolist()) == {0, 4}  # of eight classes, equally many
    assert isinstance(pupils[0].companion, nn.Dropout)
    rounds.clear()
    monkeypatch.setattr(
        peers_and_self, "confident_labels", lambda z, threshold: torch.full((12,), UNLABELLED)
    )
    assert noisy_student(given, seed=5, threshold=0.99).details == {"pseudo_labelled": 0.0}
    assert [views.labels.tolist() for views in rounds] == 3 * [3 * [1, 2, 3, 4, 5, 6]]


def test_dropout_stands_before_the_last_layer_while_it_learns(monkeypatch):
    kept = {}

    def learn(given, pupil, views, loss, *, seed):
        inputs = normalize(views.pixels[:8])
        kept["twice"] = [loss(pupil.train(), inputs, torch.arange(8)).item() for _ in range(2)]
        kept["still"] = loss(pupil.eval(), inputs, torch.arange(8)).item()
        kept["wanted"] = F.cross_entropy(pupil.student(inputs), views.labels[:8]).item()
        return pupil.student

    monkeypatch.setattr(peers_and_self, "learn", learn)
    noisy_student(task(), seed=0, threshold=0.0)
    assert kept["twice"][0] != kept["twice"][1]
    assert kept["still"] == pytest.approx(kept["wanted"], rel=1e-4)
