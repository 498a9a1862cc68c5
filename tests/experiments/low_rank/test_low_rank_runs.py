"""Each run of lab 04, on a few made-up images and tiny networks: what it finds, keeps, and leaves behind."""

import pytest
import torch
from torch import nn

from compresslab.analysis.layer_inputs import gram_matrices
from compresslab.data.images import Images, Splits
from compresslab.errors import CompressionError
from compresslab.experiments import experiment as experiment_module
from compresslab.experiments.experiment import TUNING, Context, Run
from compresslab.experiments.low_rank import runs
from compresslab.experiments.results import load_weights
from compresslab.measurement.costs import count_macs, count_parameters
from compresslab.models.residual import ResidualNetwork
from compresslab.models.surgery import weight_layers
from compresslab.techniques.low_rank.factorization import factorize
from compresslab.techniques.low_rank.layer_splits import SPLITS, TUCKER, whitened
from compresslab.techniques.low_rank.lora import UpdatedLinear
from compresslab.training.loop import Epoch, Trained

CONV, SHORT = "blocks.0.conv1", {"learning_rate": 0.05, "seed": 0}
RANKS = {"tucker": {CONV: [3, 2], "head": 2}, "random": {CONV: [3, 2]}} | {
    way: {CONV: 4, "head": 2} for way in ("channels", "whitened", "space", "cp")
}  # as JSON gives them back
SIZES, MLP_RANKS = ((12, 784), (8, 12), (10, 8)), {"1": 3, "3": 2}  # of the tiny perceptron


def tiny(name="baseline", seed=5):
    """Stands for a trained network."""
    torch.manual_seed(seed)
    first, second, last = (nn.Linear(n, m) for m, n in SIZES)
    perceptron = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last)
    return (ResidualNetwork(8, [(8, 4)]) if name == "baseline" else perceptron).eval()


def drawn(count, seed):
    """Images of noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10)


@torch.no_grad()
def reached(network, images, *, precision=torch.float32):
    """Stands for the accuracy: no two networks have the same on the same images."""
    return float(network.eval()(images.inputs()).double().abs().sum())


DATA = Splits(drawn(400, 0), drawn(510, 1), drawn(30, 2))


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    """Tiny networks of random weights for the trained ones."""
    monkeypatch.setattr(runs, "load_baseline", tiny)
    monkeypatch.setattr(runs, "mlp", lambda: tiny("mlp", seed=torch.initial_seed()).train())
    monkeypatch.setattr(runs, "accuracy", reached)
    monkeypatch.setattr(runs, "LOOKED_AT", 60)
    monkeypatch.setattr(experiment_module, "fast_precision", lambda: torch.float32)
    monkeypatch.setattr(runs, "fast_precision", lambda: torch.float32)


def given(folder, key="tuned/any/0", *, network="", data=DATA):
    """What a run is given; by default it is no try, and the plan names no network of it."""
    return Context(data, folder, Run(key, "", network=network))


@pytest.fixture
def context(tmp_path):
    return given(tmp_path)


@pytest.fixture
def trainings(monkeypatch):
    """What was trained: (network before, its images, validation, settings, network after)."""
    calls, train = [], runs.fit

    def note(network, images, validation, **settings):
        trained = train(network, images, validation, **settings)
        calls.append((network, images, validation, settings, trained.model))
        return trained

    monkeypatch.setattr(runs, "fit", note)
    return calls


def same(one, other):
    """Whether the networks have the same tensors, bit for bit."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_random_directions_project_on_orthonormal_columns():
    layer = tiny().get_submodule(CONV)
    first, core, last = (k.double() for k in runs.random_directions(3).kernels(CONV, layer, (5, 3)))
    u_in, u_out = first[:, :, 0, 0].T, last[:, :, 0, 0]
    torch.testing.assert_close(u_in.T @ u_in, torch.eye(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(u_out.T @ u_out, torch.eye(5).double(), atol=1e-6, rtol=0)
    for w, c in zip(layer.weight.double().flatten(2).unbind(2), core.flatten(2).unbind(2), strict=True):
        projected = u_out @ u_out.T @ w @ u_in @ u_in.T  # (out, in), at each position of the kernel
        torch.testing.assert_close(u_out @ c @ u_in.T, projected, atol=1e-6, rtol=0)
    again, other = (runs.random_directions(seed).kernels(CONV, layer, (5, 3))[0] for seed in (3, 4))
    assert torch.equal(again.double(), first)
    assert not torch.equal(other.double(), first)


def test_random_directions_lose_nothing_at_full_rank_and_more_than_tuckers_below():
    layer = tiny().requires_grad_(False).get_submodule(CONV)

    def lost(split, ranks):
        first, core, last = (k.double() for k in split.kernels(CONV, layer, ranks))
        rebuilt = torch.einsum("op,pqhw,qi->oihw", last[:, :, 0, 0], core, first[:, :, 0, 0])
        return float((rebuilt - layer.weight).norm() / layer.weight.norm())

    at_random = [runs.random_directions(seed) for seed in range(10)]
    assert all(lost(split, (8, 8)) < 1e-5 for split in at_random)
    for ranks in ((4, 4), (6, 3), (2, 7)):
        assert sum(lost(split, ranks) for split in at_random) / 10 > 1.05 * lost(TUCKER, ranks)


@pytest.mark.parametrize("way", ["channels", "whitened", "tucker"])
def test_the_scan_finds_how_far_each_layer_alone_moves_the_answers(tmp_path, way):
    train = DATA.train if way == "whitened" else None  # whitening alone looks at training images
    context = given(tmp_path, data=Splits(train, DATA.validation, None))
    found = runs.scan(context, way=way, shares=[0.9, 0.4, 0.01], multiple=2, images=40)["damages"]
    opens = set(weight_layers(tiny())) - ({"blocks.0.shortcut.0"} if way == "tucker" else set())
    assert found.keys() == opens
    assert all(row[2] is None for row in found.values())  # a hundredth is thinner than any rank
    assert 0 <= found[CONV][0] < found[CONV][1]


def test_the_scans_damage_is_what_the_answers_diverge_in_nats(context):
    found = runs.scan(context, way="channels", shares=[0.5], multiple=1, images=40)["damages"]
    rank = 576 // 2 // (72 + 8)  # of an (8, 72) matrix; 80 weights a rank
    x = DATA.validation.first(40).inputs()
    with torch.no_grad():
        p, q = (net.eval()(x).double().softmax(1) for net in (tiny(), factorize(tiny(), {CONV: rank})))
    assert found[CONV][0] == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=0.01)


@pytest.mark.parametrize("way", ["tucker", "space", "cp", "whitened"])
def test_a_named_network_is_made_thin_trained_kept_and_reads_test(tmp_path, trainings, way):
    context = given(tmp_path, f"networks/{way}/0", network=way)
    asked = {"network": "baseline", "way": way, "ranks": RANKS[way], "epochs": 2, "augmented": True}
    found = runs.make_thin(context, **asked, **SHORT)
    ((before, images, _, told, after),) = trainings
    assert images is DATA.train
    assert (told["epochs"], told["learning_rate"], told["augmented"]) == (2, 0.05, True)
    assert found["macs_per_sample"] == count_macs(after, DATA.test.inputs()[:1])
    assert count_parameters(before) == count_parameters(after) < count_parameters(tiny())
    assert found["thin_accuracy"] == reached(before, DATA.validation)
    assert found["thin_test_accuracy"] == reached(before, DATA.test)
    assert found["validation_accuracy"] == reached(after, DATA.validation)
    assert found["test_accuracy"] == reached(after, DATA.test) != found["thin_test_accuracy"]
    assert len(found["history"]) == 2
    back = load_weights(context.network_path, into=runs.structure("thin", asked))
    assert same(back, after)


def test_whitening_looks_at_the_images_of_its_seed_and_beats_the_plain_cut_on_them(context, trainings):
    for way in ("whitened", "channels"):
        asked = {"ranks": {CONV: 3}, "images": 130, "learning_rate": 0.05, "seed": 4}
        runs.study_tuning(context, way=way, **asked)
    whole = tiny()
    with torch.no_grad():
        x = whole.stem(context.sample(60, 4).inputs())
        y = whole.get_submodule(CONV)(x)
        by_way = [float((before.get_submodule(CONV)(x) - y).norm()) for before, *_ in trainings]
    assert by_way[0] < 0.99 * by_way[1]
    seen = whitened(gram_matrices(whole, context.sample(60, 4).batches()))
    assert same(trainings[0][0], factorize(whole, {CONV: 3}, split=seen))


TRIES = {
    "long": (runs.make_thin, {"network": "baseline", "epochs": 1, "augmented": False}),
    "short": (runs.study_tuning, {"images": 130}),
}


@pytest.mark.parametrize("name", TRIES)
def test_a_try_reads_no_test_image_and_keeps_no_network(tmp_path, name):
    blind = Splits(DATA.train, DATA.validation, None)  # who reads test fails
    run, settings = TRIES[name]
    settings = {"way": "tucker", "ranks": RANKS["tucker"], **settings, **SHORT}
    found = run(given(tmp_path, f"{TUNING}/{name}/tucker/0.05/0", data=blind), **settings)
    assert "validation_accuracy" in found
    assert not [key for key in found if "test" in key]
    assert not given(tmp_path).network_path.exists()
    with pytest.raises(AttributeError):  # a reported one does read
        run(given(tmp_path / "reported", data=blind), **settings)


@pytest.mark.parametrize("way", ["random", "tucker", "channels"])
def test_a_short_training_reports_the_thin_network_before_and_after_one_pass(context, trainings, way):
    asked = {"way": way, "ranks": RANKS[way], "images": 130, "learning_rate": 0.05, "seed": 3}
    found = runs.study_tuning(context, **asked)
    ((before, images, validation, told, after),) = trainings
    assert found == {
        "macs_per_sample": count_macs(after, DATA.test.inputs()[:1]),
        "thin_accuracy": reached(before, DATA.test),
        "test_accuracy": reached(after, DATA.test),
    }
    assert torch.equal(images.pixels, context.sample(130, 3).pixels)
    assert torch.equal(validation.pixels, DATA.validation.pixels[:500])
    assert (told["epochs"], told["learning_rate"], told["seed"], told["augmented"]) == (1, 0.05, 3, True)
    split = runs.random_directions(3) if way == "random" else SPLITS[way]
    assert same(before, factorize(tiny(), runs.as_ranks(RANKS[way]), split=split))


def test_a_perceptron_begins_thin_or_becomes_it_with_the_same_ranks_and_passes(context, trainings):
    asked = {"ranks": MLP_RANKS, "epochs": 1, "more": 2, "learning_rate": 0.05, "seed": 2}
    found = runs.study_beginning(context, **asked)
    dense, longer, tuned, first, first_longer = trainings
    assert [call[3]["epochs"] for call in trainings] == [1, 2, 2, 1, 3]
    assert found == {
        "dense": reached(dense[4], DATA.test),
        "dense_longer": reached(longer[4], DATA.test),
        "thin": reached(tuned[0], DATA.test),
        "fine_tuned": reached(tuned[4], DATA.test),
        "from_the_start": reached(first[4], DATA.test),
        "from_the_start_longer": reached(first_longer[4], DATA.test),
    }
    assert same(longer[0], dense[4])
    assert same(tuned[0], factorize(dense[4], MLP_RANKS))
    assert same(first[0], factorize(dense[0], MLP_RANKS))
    assert same(first[0], first_longer[0])
    for network in (tuned[4], first[4], first_longer[4]):
        for name, rank in MLP_RANKS.items():
            assert network.get_submodule(name)[0].out_features == rank
            weight = network.get_submodule(name)[1].weight @ network.get_submodule(name)[0].weight
            assert torch.linalg.matrix_rank(weight) == rank
    torch.manual_seed(2)
    assert same(dense[0], runs.mlp())


# updates


def adapt(context, way, rank=0, *, rates=(0.02,)):
    """The study of 400 turned images."""
    asked = {"images": 400, "epochs": 1, "learning_rates": list(rates), "seed": 1}
    return runs.study_adapting(context, way=way, rank=rank, **asked)


LEARNING = [("all", 0, sum(m * n + m for m, n in SIZES)), ("head", 0, 10 * 8 + 10)]
LEARNING += [("update", r, sum(min(r, m, n) * (m + n) for m, n in SIZES)) for r in (1, 4, 16)]


@pytest.mark.parametrize(("way", "rank", "parameters"), LEARNING)
def test_what_learns_is_counted_exactly_and_nothing_else_changes(context, trainings, way, rank, parameters):
    found = adapt(context, way, rank)
    ((before, *_, after),) = trainings
    assert found["trained"] == parameters
    changed = {name for name, p in after.named_parameters() if not torch.equal(p, before.get_parameter(name))}
    learning = {name for name, p in before.named_parameters() if p.requires_grad}
    assert changed == learning
    assert sum(before.get_parameter(name).numel() for name in learning) == parameters
    assert found["test_accuracy"] != found["before"]
    assert ("merged_accuracy" in found) == (way == "update")


def test_images_are_turned_by_a_right_angle_and_their_labels_kept(context, trainings):
    found = adapt(context, "all")
    ((before, images, validation, _, after),) = trainings

    def turned(given):  # anticlockwise
        return Images(given.pixels.transpose(2, 3).flip(2), given.labels)

    for ours, whole in ((images, context.sample(400, 1)), (validation, DATA.validation)):
        assert torch.equal(ours.pixels, turned(whole).pixels)
        assert torch.equal(ours.labels, whole.labels)
    assert found["before"] == reached(tiny("mlp"), turned(DATA.test)) == reached(before, turned(DATA.test))
    assert found["test_accuracy"] == reached(after, turned(DATA.test))


def test_updates_say_at_first_what_the_network_says_and_merged_what_they_learned(context, trainings):
    found = adapt(context, "update", 4, rates=(0.5,))
    ((before, images, *_, after),) = trainings
    assert reached(before, images) == pytest.approx(reached(tiny("mlp"), images), rel=1e-6)
    assert found["merged_accuracy"] == pytest.approx(found["test_accuracy"], rel=1e-5)
    assert found["merged_accuracy"] != pytest.approx(found["before"], rel=1e-3)
    assert [layer.scale for layer in after.modules() if isinstance(layer, UpdatedLinear)] == [1.0] * 3


def test_a_learning_rate_that_diverges_is_no_choice(context, trainings):
    found = adapt(context, "all", rates=(1e30, 0.02, 1e25))
    assert found["learning_rate"] == 0.02
    assert len(trainings) == 1  # the others did not come to an end
    with pytest.raises(CompressionError, match="must stay finite"):
        runs.fit(tiny("mlp"), DATA.train, DATA.validation, epochs=1, learning_rate=1e30)


@pytest.mark.parametrize(
    ("reaches", "best"), [((0.5, 0.7, 0.6), 0.02), ((0.6, 0.5, 0.6), 0.01), ((0.2, 0.3, 0.4), 0.03)]
)
def test_the_learning_rate_is_chosen_by_validation_of_equals_the_first(context, monkeypatch, reaches, best):
    rates = (0.01, 0.02, 0.03)
    networks = {rate: tiny("mlp", seed=place) for place, rate in enumerate(rates)}

    def fit(network, images, validation, *, learning_rate, **settings):
        reach = reaches[rates.index(learning_rate)]
        return Trained(networks[learning_rate], (Epoch(1.0, reach), Epoch(1.0, 0.1 * (1 - reach))))

    monkeypatch.setattr(runs, "fit", fit)
    found = adapt(context, "all", rates=rates)
    assert found["learning_rate"] == best
    assert found["test_accuracy"] == reached(networks[best], runs._turned(DATA.test))
