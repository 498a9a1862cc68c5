"""Every method teaches: the loss is what the page says, the student alone is shipped, the steps are equal."""

import copy
import dataclasses
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.data.images import Images, Splits, normalize
from compresslab.errors import CompressionError
from compresslab.experiments.distillation import methods as comparison
from compresslab.experiments.distillation.methods import (
    GENERATIONS,
    HINT,
    LAYERS,
    METHODS,
    Learned,
    learn_alone,
    learn_together,
)
from compresslab.experiments.distillation.setting import few_labels
from compresslab.models.residual import ResidualNetwork, student, teacher
from compresslab.models.surgery import layer_outputs
from compresslab.techniques.distillation import feature, offline, relation
from compresslab.techniques.distillation.offline import know
from compresslab.techniques.distillation.response import UNLABELLED, decoupled_loss, kd_loss
from compresslab.training.loop import accuracy

every_method = pytest.mark.parametrize("name", METHODS)
OFFLINE = [name for name, method in METHODS.items() if method.strategy == "offline"]
WEIGHED = ["fitnet", "attention", "rkd", "pkt", "sp"]  # cross-entropy + strength · term


def drawn(n, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.randint(10, (n,), generator=generator))


@functools.cache
def untaught():
    """Four steps a pass: 256 labelled views and 256 unlabelled ones. No teacher."""
    data = Splits(drawn(384, 0), drawn(30, 1), None)
    return few_labels(data, labelled=128, unlabelled=256, views=(2, 1), passes=1)


@functools.cache
def setting(seed=7):
    """The same with a teacher of random weights."""
    torch.manual_seed(seed)
    layers = {"attention": list(LAYERS.values()), "features": [HINT[1]], "embedding": "network.pool"}
    return dataclasses.replace(untaught(), knowledge=know(teacher(), untaught().views, **layers))


@functools.cache
def run(name, *, strength=None, seed=0):
    """One run; of an online or self method without any knowledge at hand."""
    method = METHODS[name]
    place = setting() if method.strategy == "offline" else untaught()
    return method.run(place, strength=strength or method.strength, seed=seed)


def equal(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture
def steps(monkeypatch):
    """How many steps each training took."""
    counts, fit = [], comparison.fit

    def counting(*args, **settings):
        counts.append(0)

        def step(model):
            counts[-1] += 1

        return fit(*args, after_step=step, **settings)

    for page in (comparison, offline):
        monkeypatch.setattr(page, "fit", counting)
    return counts


@every_method
def test_what_is_shipped_is_the_student_and_nothing_else(name):
    network = run(name).network
    mine, plain = network.state_dict(), student().state_dict()
    assert type(network) is ResidualNetwork
    assert {n: t.shape for n, t in mine.items()} == {n: t.shape for n, t in plain.items()}
    assert all(t.isfinite().all() for t in mine.values())
    assert not network.training


@every_method
def test_learning_moves_every_layers_weights(name):
    torch.manual_seed(0)
    before, after = student(), run(name).network
    for (n, one), other in zip(before.named_parameters(), after.parameters(), strict=True):
        assert not torch.equal(one, other), n


@every_method
def test_a_seed_gives_the_same_student_again_and_another_seed_another(name):
    method = METHODS[name]
    place = setting() if name in OFFLINE else untaught()
    again = method.run(place, strength=method.strength, seed=0).network
    assert equal(run(name).network, again)
    assert not equal(run(name, seed=1).network, again)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "noisy_student"])  # see its own test
def test_the_strength_makes_a_difference(name):
    assert not equal(run(name).network, run(name, strength=METHODS[name].strength / 2).network)


@pytest.mark.parametrize("name", OFFLINE)
def test_another_teacher_makes_another_student(name):
    method = METHODS[name]
    other = method.run(setting(8), strength=method.strength, seed=0).network
    assert not equal(run(name).network, other)


@pytest.mark.parametrize("name", OFFLINE)
def test_without_a_teacher_there_is_nothing_to_learn_offline(name):
    with pytest.raises(CompressionError, match="this method learns from a teacher, and the setting has"):
        METHODS[name].run(untaught(), strength=1.0, seed=0)


@every_method
def test_each_training_takes_as_many_steps_as_the_student_alone(name, steps):
    place = setting() if name in OFFLINE else untaught()
    METHODS[name].run(place, strength=METHODS[name].strength, seed=0)
    assert steps == [place.steps] * {"born_again": GENERATIONS + 1, "noisy_student": 2}.get(name, 1)


@pytest.mark.parametrize(("passes", "longer"), [(1, 1), (3, 1), (2, 3)])
def test_the_student_alone_takes_as_many_steps_as_the_others(passes, longer, steps):
    place = dataclasses.replace(untaught(), passes=passes)
    learn_alone(place, seed=0, longer=longer)
    assert steps == [longer * place.steps]


def test_the_student_alone_sees_the_labelled_images_in_fresh_views(monkeypatch):
    seen = []

    def fit(model, images, validation, **settings):
        seen.append((images, settings))
        return dataclasses.make_dataclass("Trained", ["model"])(model)

    monkeypatch.setattr(comparison, "fit", fit)
    learn_alone(untaught(), seed=3)
    ((images, settings),) = seen
    assert images is untaught().labelled
    assert settings["augmented"]
    assert (settings["learning_rate"], settings["seed"]) == (untaught().learning_rate, 3)


# -- the losses ------------------------------------------------------------------------------------------


def lesson(name, strength, index, monkeypatch):
    """The loss of a batch as the method computes it, by a student in evaluation mode; and that student."""
    kept = {}

    def taught(place, pupil, teach, seed):
        pupil.eval()
        kept["loss"] = teach(pupil, normalize(place.views.pixels[index]), index)
        kept["pupil"] = pupil
        return pupil.student

    monkeypatch.setattr(comparison, "_taught", taught)
    METHODS[name].run(setting(), strength=strength, seed=0)
    return kept["loss"].detach(), kept["pupil"]


INDEX = torch.tensor([450, 3, 130, 300, 17, 200, 64, 259])  # labelled and unlabelled views, in no order


@torch.no_grad()
def answers(pupil, layers=("pool",)):
    return layer_outputs(pupil.student, normalize(setting().views.pixels[INDEX]), layers)


@pytest.mark.parametrize("name", WEIGHED)
def test_a_weighed_loss_is_cross_entropy_plus_strength_times_its_term(name, monkeypatch):
    zero, one, three = (lesson(name, s, INDEX, monkeypatch)[0] for s in (0.0, 1.0, 3.0))
    logits, _ = answers(lesson(name, 1.0, INDEX, monkeypatch)[1])
    hard = F.cross_entropy(logits, setting().views.labels[INDEX], ignore_index=UNLABELLED)
    torch.testing.assert_close(zero, hard)
    torch.testing.assert_close(three - zero, 3 * (one - zero), rtol=1e-4, atol=1e-5)
    assert one > zero


@pytest.mark.parametrize("name", WEIGHED)
def test_the_term_is_of_the_same_views_of_student_and_teacher(name, monkeypatch):
    zero, one = (lesson(name, s, INDEX, monkeypatch)[0] for s in (0.0, 1.0))
    pupil, known = lesson(name, 1.0, INDEX, monkeypatch)[1], setting().knowledge
    mine, theirs = answers(pupil)[1][0], known.embeddings[INDEX]
    if name == "fitnet":
        hint = known.features[HINT[1]][INDEX]
        with torch.no_grad():
            wanted = F.mse_loss(pupil.companion(answers(pupil, [HINT[0]])[1][0]), hint)
    elif name == "attention":
        maps = [feature.attention_map(output) for output in answers(pupil, list(LAYERS))[1]]
        pairs = zip(maps, LAYERS.values(), strict=True)
        wanted = sum(F.mse_loss(own, known.attention[layer][INDEX]) for own, layer in pairs)
    elif name == "rkd":
        wanted = 25 * relation.rkd_distance_loss(mine, theirs) + 50 * relation.rkd_angle_loss(mine, theirs)
    else:
        wanted = {"pkt": relation.pkt_loss, "sp": relation.similarity_loss}[name](mine, theirs)
    torch.testing.assert_close(one - zero, wanted, rtol=1e-3, atol=1e-5)


def test_kd_and_dkd_are_those_of_their_pages_at_the_strength_named(monkeypatch):
    labels, told = setting().views.labels[INDEX], setting().knowledge.logits[INDEX]
    value, pupil = lesson("kd", 2.0, INDEX, monkeypatch)
    torch.testing.assert_close(value, kd_loss(answers(pupil)[0], told, labels, temperature=2.0))
    value, pupil = lesson("dkd", 5.0, INDEX, monkeypatch)
    logits = answers(pupil)[0]
    hard = F.cross_entropy(logits, labels, ignore_index=UNLABELLED)
    torch.testing.assert_close(value, hard + decoupled_loss(logits, told, labels, temperature=4.0, beta=5.0))


def test_the_regressors_weights_are_reported():
    assert run("fitnet").details == {"regressor_parameters": 32 * 96 + 96}


# -- peers and generations -------------------------------------------------------------------------------


def test_peers_report_the_other_and_both(monkeypatch):
    kept = []
    monkeypatch.setattr(comparison, "accuracy", lambda model, images: kept.append(model) or 0.25 * len(kept))
    learned = learn_together(
        untaught(), make_peer=lambda: ResidualNetwork(4, [(8, 2), (16, 2)]), strength=1.0, seed=0
    )
    assert learned.details == {"peer_validation_accuracy": 0.25, "ensemble_validation_accuracy": 0.5}
    other, both = kept
    assert other.head.in_features == 16
    assert both.students[0] is learned.network
    assert both.students[1] is other


def test_generations_are_reported_from_the_first_to_the_one_that_is_shipped():
    learned = run("born_again")
    reached = learned.details["generations_validation_accuracy"]
    assert len(reached) == GENERATIONS + 1
    assert reached[0] == accuracy(learn_alone(untaught(), seed=0).network, untaught().validation)
    assert reached[-1] == accuracy(learned.network, untaught().validation)


# -- noisy student ---------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Images of one grey, 10 · number: sure that the class is number mod 10; unsure from number 14 on."""

    def __init__(self):
        super().__init__()
        self.pool = nn.Flatten()

    def forward(self, x):
        numbers = ((self.pool(x).median(dim=1).values * 0.3530 + 0.2860) * 25.5).round().long()
        return F.one_hot(numbers % 10, 10) * torch.where(numbers < 14, 20.0, 1.0)[:, None]


def test_pseudo_labels_land_on_the_views_of_their_image_and_labels_stay(monkeypatch):
    greys = torch.arange(0, 200, 10, dtype=torch.uint8).reshape(20, 1, 1, 1).repeat(1, 1, 28, 28)
    train = Images(greys, (torch.arange(20) + 1) % 10)  # the true labels are not those that Reader says
    place = few_labels(Splits(train, train, None), labelled=6, unlabelled=12, views=(3, 2))
    before, told = place.views.labels.clone(), []
    monkeypatch.setattr(comparison, "learn_alone", lambda *a, **s: Learned(Reader()))
    monkeypatch.setattr(comparison, "labelled_cross_entropy", lambda logits, labels: told.append(labels))

    def taught(setting, pupil, teach, seed):
        teach(pupil.eval(), normalize(setting.views.pixels), torch.arange(len(setting.views)))
        return pupil.student

    monkeypatch.setattr(comparison, "_taught", taught)
    learned = METHODS["noisy_student"].run(place, strength=0.9, seed=0)
    said = [n % 10 if n < 14 else UNLABELLED for n in range(6, 18)]
    assert told[0].tolist() == 3 * [1, 2, 3, 4, 5, 6] + 2 * said
    assert learned.details == {"pseudo_labelled": pytest.approx(8 / 12)}
    assert torch.equal(place.views.labels, before)
    everyone = METHODS["noisy_student"].run(place, strength=0.1, seed=0)
    assert everyone.details == {"pseudo_labelled": 1.0}


def test_no_method_changes_the_setting_or_the_teachers_knowledge():
    before = copy.deepcopy(setting())
    for name in METHODS:
        run(name)
    for part in ("views", "labelled", "unlabelled", "validation", "knowledge"):
        mine, theirs = vars(getattr(before, part)), vars(getattr(setting(), part))
        for value, now in ((value, theirs[name]) for name, value in mine.items()):
            pairs = [(value, now)] if isinstance(value, torch.Tensor) else [(value[k], now[k]) for k in value]
            assert all(torch.equal(one, other) for one, other in pairs)
