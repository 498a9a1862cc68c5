# %% [markdown]
# # Fewer weights
#
# A trained network has weights that nobody would miss. Find them, remove them, train what is left a little, and repeat:
# this is pruning, one of the oldest ways to a small network. Often nine weights in ten can go. Whether the file gets
# smaller then and the network faster is another question; you saw the first half of the answer in lab 00.
#
# Three choices make a method: *which* weights go (the criterion), *what goes together* (the granularity) and *when* (the
# schedule). We begin with the plainest rule for each, see what zeros are good for, look for better rules, train, and at
# last really cut.
#
# {{ lab }}

# %%
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import compresslab as cl
from compresslab import deployment as deploy
from compresslab.course.figures import gains as gains_as
from compresslab.course.figures.guesses import draw_guesses
from compresslab.course.pruning import figures as scenes
from compresslab.course.pruning import tradeoff_figures as curves
from compresslab.experiments import pruning as experiments
from compresslab.notebook import lab, metric, verdict
from compresslab.storage import sparse as forms
from compresslab.techniques import pruning as p
from compresslab.techniques.quantization import fold_batch_norm

# %%
check, hint, reveal, yours = lab("03_pruning")
data = cl.fashion_mnist()
baseline, results = cl.load_baseline(), experiments.load_results()
layers = p.prunable_layers(baseline)  # {name: Conv2d or Linear}
few = data.validation.first(2000)  # to look at; what we claim is measured on test
one, batch = data.test.first(1).inputs(), data.test.first(64).inputs()

# %% [markdown]
# Bet first. In lab 00 nine zeros in ten bought nothing, for a zero is a number like any other. Now we leave them out: the
# file holds only what is not zero, and a sparse product multiplies only that. How many times smaller is the file, how many
# times faster the product? And if half of the channels are really cut out, what share of the weights is left?

# %%
guess = {"file without its zeros: times smaller": 10.0, "sparse product: times faster": 10.0}  # your bets
guess_left = 0.5  # share of the weights that is left with half the channels

# %% [markdown]
# ## The smallest go
#
# A weight near zero adds little to any sum, so the plainest rule says: let the smallest go ([Han et al.
# 2015](https://arxiv.org/abs/1506.02626)). Write it so that it keeps its word: half means half, also where many weights
# are equal, as they are after an earlier pruning.


# %% exercise="magnitude_mask"
def magnitude_mask(weight: Tensor, *, sparsity: float) -> Tensor:
    """Which weights stay: True but for the round(sparsity · n) smallest magnitudes. About 4 lines.

        n      = the number of weights
        rank   = the places of weight, in the order of |weight|, the smallest first
        mask[i] = False   for the first round(sparsity · n) places in rank,   else True

    The count is exact: of several equal magnitudes just as many go as are needed, no matter which. The layer is ranked
    as a whole, whatever its shape. At sparsity 0 every weight stays.

    Args:
        weight: floats of any shape; not changed.
        sparsity: the share that goes, a fraction, 0 ≤ sparsity < 1; sparsity · n is never midway between two integers.

    Returns:
        mask, bool, in the shape of weight: True is a weight that stays.
    """
    ### BEGIN SOLUTION
    lowest_first = weight.abs().flatten().argsort()
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[lowest_first[: round(sparsity * weight.numel())]] = False
    return mask.view(weight.shape)
    ### END SOLUTION


# %%
# About 5 seconds.
for sparsity in (0.5, 0.7, 0.9):
    masks = {
        name: yours.magnitude_mask(layer.weight.detach(), sparsity=sparsity) for name, layer in layers.items()
    }
    reached = cl.accuracy(p.masked(baseline, masks), few)
    print(f"{sparsity:.0%} of every layer's weights gone: {reached:.1%} right, without any training")

# %% [markdown]
# Half of the weights were hardly needed; with nine in ten gone the network only guesses. But every layer gave the same
# share here, as if all could spare as much. They can't. Prune one layer alone, leave the others whole, and see how far the
# answers move (the KL divergence of lab 02, in nats, between the whole network's answers and the pruned one's). Read a
# row: where does it darken? Then look at its bar.

# %%
moved = results["scan"]
sizes = {name: layer.weight.numel() for name, layer in layers.items()}
scenes.draw_sensitivity(moved["damages"], moved["sparsities"], weights=sizes)

# %%
at_90 = moved["sparsities"].index(0.9)
metric("scan_stem.damage", moved["damages"]["stem.0"][at_90])
metric("scan_last.damage", moved["damages"]["head"][at_90])
metric("scan_widest.damage", moved["damages"]["blocks.6.conv2"][at_90])

# %% [markdown]
# The first layer and the last have few weights, and need them: with `90%` gone they move the answers by
# {{ scan_stem.damage | number }} and {{ scan_last.damage | number }} nats; one of the widest, with nearly a thousand times
# as many as the first, by {{ scan_widest.damage | number }}. One threshold for all layers lets them compete: more goes where weights are small, as in wide layers. (It sees sizes and no damage, and it may
# empty a layer: so look at the table.)


# %% exercise="global_masks"
def global_masks(weights: list[Tensor], *, sparsity: float) -> list[Tensor]:
    """A mask for each layer, from one ranking of all their weights together. About 5 lines.

        n    = the number of weights in all layers
        rank = all weights of all layers, in the order of |w|, the smallest first
        the first round(sparsity · n) in rank are False in the mask of their layer, the others True

    Magnitudes are compared as they are, whichever layer they come from; a layer may lose more than its share, even
    everything, or nothing. The total is exact: of several equal magnitudes just as many go as are needed, no matter
    which. At sparsity 0 every weight stays.

    Args:
        weights: of the layers, floats, each in a shape of its own; not changed.
        sparsity: the share that goes, a fraction, 0 ≤ sparsity < 1; sparsity · n is never midway between two integers.

    Returns:
        A list of masks in the order of weights, bool, each in its weight's shape: True is a weight that stays.
    """
    ### BEGIN SOLUTION
    sizes = torch.cat([w.abs().flatten() for w in weights])  # (all weights,)
    mask = torch.ones(len(sizes), dtype=torch.bool)
    mask[sizes.argsort()[: round(sparsity * len(sizes))]] = False
    pieces = mask.split([w.numel() for w in weights])
    return [piece.view(w.shape) for piece, w in zip(pieces, weights, strict=True)]
    ### END SOLUTION


# %%
# About 3 seconds.
weights = [layer.weight.detach() for layer in layers.values()]
together = dict(zip(layers, yours.global_masks(weights, sparsity=0.8), strict=True))
apart = p.local_masks(p.magnitudes(baseline), sparsity=0.8)
for name, masks in (("a threshold for each layer", apart), ("one for all", together)):
    print(f"{name}: {cl.accuracy(p.masked(baseline, masks), few):.1%} right, 80% of the weights gone")
p.sparsity_table(p.masked(baseline, together))

# %% [markdown]
# Which layers lost most? Is the stem alive? (A bonus: use the scan itself. Let every layer lose what it bears: as long as
# too many weights are left, the next step is taken where a weight less does the least damage. `p.sparsities_under_budget`
# goes a little further: it may jump over steps, and gives back what is left of the budget.)


# %% exercise="sparsities_under_budget"
def sparsities_under_budget(
    damages: Tensor, weights: list[int], sparsities: list[float], budget: int
) -> list[float]:
    """A sparsity for each layer, chosen step by step until the budget is met. About 10 lines.

        kept(l, c)  = weights[l] - round(sparsities[c] · weights[l])        weights of layer l that stay at choice c
        start with choice 0 in every layer, dense
        while the kept weights of all layers together are more than budget:
            a step takes one layer l from its choice c to c + 1; a layer at its last choice has none
            its price is (damages[l, c + 1] - damages[l, c]) / (kept(l, c) - kept(l, c + 1))
            take the step with the lowest price

    The last step may save more than it must. A price below 0, where a damage falls, is the lowest of all.

    Args:
        damages: (layers, choices), float: the damage when only this layer is pruned, to this choice; not changed.
        weights: of each layer, how many it has.
        sparsities: of each choice, fractions that rise from 0.0; every step saves at least one weight. In the check
            sparsities[c] · weights[l] is never midway between two integers, and no two prices are equal.
        budget: how many weights may stay in all layers together; the last choice everywhere meets it.

    Returns:
        The sparsity of each layer, one of sparsities, in the order of the layers.
    """
    ### BEGIN SOLUTION
    kept = [[n - round(s * n) for s in sparsities] for n in weights]
    picks = [0] * len(weights)  # each layer's choice
    while sum(row[c] for row, c in zip(kept, picks, strict=True)) > budget:
        prices = {
            layer: float(damages[layer, c + 1] - damages[layer, c]) / (kept[layer][c] - kept[layer][c + 1])
            for layer, c in enumerate(picks)
            if c + 1 < len(sparsities)
        }
        picks[min(prices, key=lambda layer: prices[layer])] += 1
    return [sparsities[c] for c in picks]
    ### END SOLUTION


# %%
shares = {
    "the_same_share": experiments.tuned_accuracies(results, "magnitude", "fine", 0.9),
    "one_threshold": experiments.values(results, "allocation", "global"),
    "by_the_scan": experiments.values(results, "allocation", "scan"),
}
metric("tuned.images", results["tuned/magnitude/fine/0.9/0"]["images"])
for name, reached in shares.items():
    metric(f"{name}.accuracy", cl.mean_over_seeds(reached))
    if name != "the_same_share":
        metric(f"{name}.gain", cl.gain_over_seeds(reached, shares["the_same_share"]))

# %% [markdown]
# With `90%` zeros, and after one pass over {{ tuned.images | count }} training images, the same share everywhere reaches
# {{ the_same_share.accuracy | percent }} on test. One threshold for all gains {{ one_threshold.gain | points }} (from
# {{ one_threshold.gain.low | points }} to {{ one_threshold.gain.high | points }}), shares from the scan
# {{ by_the_scan.gain | points }} (from {{ by_the_scan.gain.low | points }} to {{ by_the_scan.gain.high | points }}).
#
# ## What goes together
#
# Single zeros lie scattered, and scattered zeros are hard to leave out. So weights are often dropped in groups: a row of
# a kernel (*vector*), a whole *kernel*, a whole filter and with it a *channel* of the output; in a linear layer, a
# *neuron* ([Mao et al. 2017](https://arxiv.org/abs/1705.08922)). A group is judged by the sum of its magnitudes.


# %% exercise="structured_mask"
def structured_mask(weight: Tensor, *, granularity: tuple[int, ...], sparsity: float) -> Tensor:
    """The mask that drops the groups with the smallest L1 norms, each as a whole. About 5 lines.

    granularity names the dimensions that lie inside a group; the other dimensions tell the groups apart. Of a
    convolution's weight (out, in, h, w), (3,) makes a group of each row of a kernel, (2, 3) of each kernel and
    (1, 2, 3) of each filter.

        for each group:  norm = sum of |w| over the weights of the group
        the round(sparsity · number of groups) groups with the smallest norms:  mask = False
        all others:                                                             mask = True

    The count is exact: of groups with equal norms any may go, but never too many. round is Python's.

    Args:
        weight: (out, in, h, w) of a Conv2d or (out, in) of a Linear; not changed.
        granularity: one dimension of the weight or more, in rising order.
        sparsity: the share of the groups to drop, 0 ≤ sparsity < 1.

    Returns:
        A bool mask in the shape of weight: True is a weight that stays.
    """
    ### BEGIN SOLUTION
    norms = weight.abs().sum(dim=granularity, keepdim=True)  # 1 along the dimensions that a group spans
    kept = torch.ones(norms.numel(), dtype=torch.bool)
    kept[norms.flatten().argsort()[: round(sparsity * norms.numel())]] = False
    return kept.view(norms.shape).expand(weight.shape)
    ### END SOLUTION


# %% [markdown]
# (A bonus.) Between single weights and groups there is a compromise that some processors are built for ([Mishra et al.
# 2021](https://arxiv.org/abs/2104.08378)), which overviews call *semi-structured*: of every four neighbours two stay.
# Half of the multiplications can then be skipped, and two bits tell the place of each weight that stays. No kernel here
# does that, so we can measure its accuracy and its bytes, and not its time.


# %% exercise="two_of_four_mask"
def two_of_four_mask(weight: Tensor) -> Tensor:
    """The mask that keeps, of every four neighbouring inputs, the two with the largest |w|. About 5 lines.

    Neighbours lie along dimension 1, the inputs: 0 to 3 are a group, 4 to 7 the next. A convolution's groups are the
    same, once for each place of the kernel.

        for each output o, (each place of the kernel,) and start = 0, 4, 8, …:
            of weight[o, start : start + 4] the two largest |w| have mask True, the others False

    Where in is no multiple of 4, the last group has fewer members: of three or two it keeps two, of one that one.
    Of equal magnitudes any may stay, but two and no more.

    Args:
        weight: (out, in) of a Linear or (out, in, h, w) of a Conv2d; not changed.

    Returns:
        A bool mask in the shape of weight: True is a weight that stays.
    """
    ### BEGIN SOLUTION
    masks = []
    for group in weight.abs().split(4, dim=1):  # (out, 4, …), the last may be narrower
        places = group.topk(min(2, group.shape[1]), dim=1).indices
        masks.append(torch.zeros_like(group, dtype=torch.bool).scatter(1, places, True))
    return torch.cat(masks, dim=1)
    ### END SOLUTION


# %%
middle = layers["blocks.3.conv2"].weight.detach()  # (64, 64, 3, 3)
inside = {"vector": (3,), "kernel": (2, 3), "channel": (1, 2, 3)}  # the dimensions that a group spans
left = {"2 of 4": p.n_of_m_mask(middle.abs()), "fine": yours.magnitude_mask(middle, sparsity=0.5)}
for name, dimensions in inside.items():
    left[name] = yours.structured_mask(middle, granularity=dimensions, sparsity=0.5)
scenes.draw_granularities(middle, left)

# %% [markdown]
# Half of the weights are gone in each. From single weights on, to the right, there is less and less to say about *where*:
# a bit for each weight, then for each row, each kernel, each filter. A *layer* is the coarsest group of all; with a
# shortcut around it, a whole block can go. What does that cost? First the masks alone.

# %%
for g, layout in experiments.GRANULARITIES.items():
    metric(
        f"{g}.index_bytes", sum(len(layout(layer.weight)) for layer in layers.values()) / 8
    )  # a bit a group
    metric(f"{g}_70.masked_accuracy", dict(experiments.masked_curve(results, "magnitude", g))[0.7])
known = cl.read_card("baseline")["test_accuracy"]
masked_curves = {g: experiments.masked_curve(results, "magnitude", g) for g in experiments.GRANULARITIES}
curves.draw_accuracy_by_sparsity(masked_curves, baseline=known)

# %% [markdown]
# Then with one pass of training, the masks held. Mind the scale.

# %%
for g in experiments.GRANULARITIES:
    metric(f"tuned_{g}_90.accuracy", dict(experiments.tuned_curve(results, g))[0.9])
    lost = [experiments.tuned_accuracies(results, "magnitude", name, 0.9) for name in ("fine", g)]
    metric(f"tuned_{g}_90.lost", cl.gain_over_seeds(*lost))
curves.draw_accuracy_by_sparsity(
    {g: experiments.tuned_curve(results, g) for g in experiments.GRANULARITIES}, baseline=known
)

# %% [markdown]
# | granularity | `70%` gone, masks alone | `90%` gone, one pass of training | a bitmap of the groups | needs |
# |---|---|---|---|---|
# | single weights | {{ fine_70.masked_accuracy | percent }} | {{ tuned_fine_90.accuracy | percent }} | {{ fine.index_bytes | bytes }} | a sparse file; for speed a sparse kernel |
# | vectors | {{ vector_70.masked_accuracy | percent }} | {{ tuned_vector_90.accuracy | percent }} | {{ vector.index_bytes | bytes }} | the same, with shorter indices |
# | kernels | {{ kernel_70.masked_accuracy | percent }} | {{ tuned_kernel_90.accuracy | percent }} | {{ kernel.index_bytes | bytes }} | the same, with still shorter ones |
# | channels | {{ channel_70.masked_accuracy | percent }} | {{ tuned_channel_90.accuracy | percent }} | {{ channel.index_bytes | bytes }} | nothing: cut them out |
#
# The coarser, the dearer in accuracy, and the cheaper to write down. (Overviews list *random* and *structured* beside
# these. They are other axes: random is a criterion, a control for any granularity; structured is what all but single
# weights are, to a degree.)
#
# ## Zeros are numbers
#
# Nine zeros in ten, put there by *your* masks: the same file, the same time. Why?

# %%
# About 15 seconds.
masks = {name: yours.magnitude_mask(layer.weight.detach(), sparsity=0.9) for name, layer in layers.items()}
zeros, folder = p.masked(baseline, masks), Path(tempfile.mkdtemp())
metric("masked.file_ratio", cl.storage_bytes(baseline) / cl.storage_bytes(zeros))
metric("masked.speedup", cl.speedup(baseline, zeros, batch, rounds=11))
for name, network in (("whole", baseline), ("zeros", zeros)):
    deploy.write_onnx(fold_batch_norm(network), folder / f"{name}.onnx")
engine = {name: deploy.load_deployed(folder / f"{name}.onnx") for name in ("whole", "zeros")}
metric("masked.speedup_onnx", cl.speedup(engine["whole"], engine["zeros"], batch, rounds=11))


# %% exercise="why_masks_save_nothing"
def why_masks_save_nothing() -> str:
    """The letter of the right answer: "a", "b", "c", "d", "e" or "f"."""
    ### BEGIN SOLUTION
    return "b"
    ### END SOLUTION


# %% [markdown]
# File {{ masked.file_ratio | times }}, time {{ masked.speedup | times }} in PyTorch (from {{ masked.speedup.low | times }}
# to {{ masked.speedup.high | times }}), {{ masked.speedup_onnx | times }} in ONNX Runtime. To gain bytes, write only what
# is not zero, and where it stands. *Where* takes bytes too: a bit for every weight (a bitmap), or 16 bits for each that is
# left (CSR), or the number of zeros that were skipped, which fits into a few bits most of the time ([Han et al.
# 2015](https://arxiv.org/abs/1510.00149); a bonus).


# %% exercise="relative_index"
def relative_index(values: Tensor, *, bits: int) -> tuple[Tensor, Tensor]:
    """A sparse vector as (gaps, stored): how many zeros to skip, and what comes then. About 12 lines.

    Whoever reads the code begins at place -1 in a vector of zeros:

        for gap, value in zip(gaps, stored):
            place = place + gap + 1
            vector[place] = value

    So two neighbours have the gap 0. A gap has few bits and is at most 2^bits - 1. Where more zeros lie in between,
    put a filler: the gap 2^bits - 1 with the value 0.0. It moves on by 2^bits places, and is put as often as it takes.
    Whatever is not zero is stored as it is, negative and tiny values too; -0.0 is a zero. Use as few codes as can be:
    nothing is stored for the zeros after the last value, for the reader knows how long the vector is.

    Args:
        values: (n,), floats, most of them 0. Not changed.
        bits: of one gap, 1 to 8; below 8, too, each gap is kept in a uint8.

    Returns:
        gaps (codes,) uint8, and stored (codes,) in the dtype of values; both empty where all values are 0.
        [0, 5, 0, 0, 0, 0, 0, 7] with 2 bits: gaps [1, 3, 1], stored [5, 0, 7].
    """
    ### BEGIN SOLUTION
    largest = 2**bits - 1
    gaps, stored, previous = [], [], -1
    for place in values.nonzero().flatten().tolist():
        gap = place - previous - 1  # the zeros between the two
        while gap > largest:
            gaps.append(largest)
            stored.append(0.0)
            gap -= largest + 1  # the filler takes a place itself
        gaps.append(gap)
        stored.append(values[place].item())
        previous = place
    return torch.tensor(gaps, dtype=torch.uint8), torch.tensor(stored, dtype=values.dtype)
    ### END SOLUTION


# %% [markdown]
# A layer's bytes in each form. Where does each line cross the dashed one?

# %%
wide = layers["blocks.6.conv1"].weight.detach()
kinds = [forms.DENSE, forms.BITMAP, forms.relative_index(bits=4), forms.relative_index(bits=8), forms.CSR]
tried = (0.02, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
written = {s: forms.sizes(wide * yours.magnitude_mask(wide, sparsity=s), forms=kinds) for s in tried}
curves.draw_file_bytes(written, dense=4 * wide.numel())

# %% [markdown]
# Below the dashed line it pays: for the bitmap almost from the start, for CSR from about a third of zeros on. Gaps of
# eight bits win where nearly all is zero; of four bits they lose there, for each is too short, and fillers eat the gain.
# So a file chooses for each layer. And time? Let a layer be a product with a sparse matrix, once the convolution, once a
# linear layer with as many weights:

# %%
# About 15 seconds.
convolution, linear = (
    layers["blocks.6.conv1"],
    nn.Linear(1008, 112, bias=False),
)  # as many weights: 112 · 1008
maps, rows = torch.randn(64, 112, 7, 7), torch.randn(64 * 49, 1008)
sparse: dict[str, list] = {"convolution": [], "linear layer": []}
for sparsity in (0.5, 0.8, 0.9, 0.95, 0.98):
    for points, layer, x in zip(sparse.values(), (convolution, linear), (maps, rows), strict=True):
        mask = yours.magnitude_mask(layer.weight.detach(), sparsity=sparsity)
        pruned = p.masked(nn.Sequential(layer), {"0": mask})[0]
        points.append((sparsity, cl.speedup(pruned, p.as_sparse_product(pruned), x, rounds=7)))
curves.draw_csr_break_even(sparse)

# %%
sparse_file = cl.storage_bytes(baseline) / cl.storage_bytes(p.store_sparsely(zeros))
for name, points in sparse.items():
    for sparsity, ratio in points:
        metric(f"csr_{name.split()[0]}_{sparsity * 100:.0f}.speedup", ratio)
metric("sparse_file.ratio", sparse_file)
draw_guesses(guess, dict(zip(guess, (sparse_file, dict(sparse["convolution"])[0.9]), strict=True)))

# %% [markdown]
# Your bets: the file is {{ sparse_file.ratio | times }} smaller, not ten times, for the places take room. And a sparse
# product has to look up where each number belongs, while a dense kernel streams through memory. A linear layer runs at
# {{ csr_linear_50.speedup | times }} the dense speed with half of its weights gone, at {{ csr_linear_90.speedup | times }}
# with `90%`, at {{ csr_linear_98.speedup | times }} with `98%`. A convolution must be unrolled first, and gets
# {{ csr_convolution_90.speedup | times }} and {{ csr_convolution_98.speedup | times }}. Zeros alone help the file, and the
# clock late or never.
#
# ## Which weights matter?
#
# Magnitude never asks the data. The gradient does: it says how fast the loss moves with a weight, so weight times
# gradient is a first guess at how far it moves when the weight goes to zero, and for a whole channel the guesses add up
# ([Molchanov et al. 2019](https://arxiv.org/abs/1906.10771)).


# %% exercise="taylor_score"
def taylor_score(weight: Tensor, gradient: Tensor) -> Tensor:
    """The score of each output channel: how far the loss would move without it, to first order, squared. About 1 line.

        score[c] = (Σ weight[c, …] · gradient[c, …])²        the sum runs over all weights of channel c

    A channel goes as a whole, so what one of its weights adds to the loss another may take back: a score of 0 where
    they cancel. To fall is to move, too: the square counts both directions. (The paper has a second score, the sum of
    the squares, for weights that go one by one; not this one.)

    Args:
        weight: (out, in) of a Linear, or (out, in, kernel_height, kernel_width) of a Conv2d; not changed.
        gradient: of the loss by the weight, in the same shape; not changed.

    Returns:
        scores, (out,), in the dtype of weight.
    """
    ### BEGIN SOLUTION
    return (weight * gradient).flatten(1).sum(dim=1) ** 2
    ### END SOLUTION


# %%
# About 5 seconds.
some = data.train.first(500)
slopes = p.mean_gradients(baseline, some.batches())
ranked = yours.taylor_score(middle, slopes["blocks.3.conv2"]).sort().values
print(
    f"blocks.3.conv2, 64 channels: {ranked[0]:.1e} the least, {ranked[31]:.1e} in the middle, {ranked[-1]:.1e} the most"
)

# %% [markdown]
# One channel counts many thousand times as much as another, and all scores are tiny: in a trained network the slopes
# nearly cancel. (The curves below add up the squares of single weights instead, the paper's other score.) So is a weight
# with a small gradient unimportant? A bonus, and two more to go deeper.


# %% exercise="why_small_gradients_mislead"
def why_small_gradients_mislead() -> str:
    """The letter of the right answer: "a", "b", "c", "d", "e" or "f"."""
    ### BEGIN SOLUTION
    return "e"
    ### END SOLUTION


# %% [markdown]
# What a weight is worth shows in how the loss *curves* (LeCun, Denker and Solla 1990, "Optimal brain damage", *OBD*): the
# narrower the valley, the dearer the way to zero. The curvature can be estimated from gradients alone, if we look at each
# image's own and not at their mean, which is all that `backward()` leaves.


# %% exercise="obd_score"
def obd_score(weight: Tensor, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """The score of each weight of a Linear layer: how far the loss rises without it, to second order. About 3 lines.

        outputs[i, o] = Σ_j weight[o, j] · inputs[i, j]                       sample i
        g[i, o, j]    = ∂loss_i / ∂weight[o, j]                              for you to find, by the chain rule
        h[o, j]       = mean over the samples i of  g[i, o, j]²              stands for ∂²loss / ∂weight[o, j]²
        score[o, j]   = h[o, j] · weight[o, j]² / 2

    The loss is the mean of the samples' losses, and sample i's own loss_i hangs on outputs[i] alone. An input that is
    always zero, and a weight of zero, give the score 0.

    Args:
        weight: (out, in); not changed.
        inputs: of the layer, (samples, in); not changed.
        output_gradients: ∂loss_i / ∂outputs[i, o], (samples, out), not divided by the number of samples; not changed.

    Returns:
        scores, (out, in), in the dtype of weight.
    """
    ### BEGIN SOLUTION
    gradients = output_gradients[:, :, None] * inputs[:, None, :]  # (samples, out, in)
    hessian = (gradients**2).mean(dim=0)  # its diagonal, (out, in)
    return hessian * weight**2 / 2
    ### END SOLUTION


# %% [markdown]
# All these ask what a weight is worth while the others stay where they are. The *optimal brain surgeon* (*OBS*, Hassibi and
# Stork 1993) asks what it is worth if the others may move and make up for it, and says how they should move.


# %% exercise="obs_step"
def obs_step(weights: Tensor, inputs: Tensor) -> tuple[Tensor, int]:
    """A row of a linear layer without its cheapest weight, the others moved to make up for it. About 5 lines.

    The outputs are inputs · weights; what a deletion costs is their squared error, summed over the samples.

        H           = 2 · inputsᵀ · inputs                                    (in, in)
        saliency[q] = weights[q]² / (2 · H⁻¹[q, q])                           what it costs to delete q, at best
        q           = the index of the smallest saliency
        row         = weights - weights[q] / H⁻¹[q, q] · H⁻¹[:, q]            and row[q] is exactly 0, no rounded rest

    No other row without weight q comes nearer to the old outputs on these inputs, in squared error.

    Args:
        weights: (in,), one output's weights. Not changed.
        inputs: (samples, in), what the layer was given; no input is a mixture of the others, so H can be inverted.

    Returns:
        (row, q): (in,) in the dtype of weights, and an int from 0 to in - 1. A weight that is 0 already is the
        cheapest.
    """
    ### BEGIN SOLUTION
    inverse = torch.linalg.inv(2 * inputs.T @ inputs)  # (in, in)
    saliency = weights**2 / (2 * inverse.diagonal())  # (in,)
    q = int(saliency.argmin())
    row = weights - weights[q] / inverse[q, q] * inverse[:, q]
    row[q] = 0.0
    return row, q
    ### END SOLUTION


# %% [markdown]
# For whole layers the same idea comes in two forms. Keep any mask, say magnitude's, and let the weights that stay make up
# for the others (*compensated*); or let a cheap surgeon choose as it goes, column by column with one inverse for all
# outputs (*SparseGPT*, [Frantar and Alistarh 2023](https://arxiv.org/abs/2301.00774)). No training in either:

# %%
surgeon = experiments.surgeon_curves(results)
curves.draw_accuracy_by_sparsity(surgeon, baseline=known)

# %%
at_80 = {
    name: [
        run[results["surgeon/0"]["sparsities"].index(0.8)]
        for run in experiments.values(results, "surgeon", key=name)
    ]
    for name in surgeon
}
metric("obs_vs_magnitude.drop_difference", cl.gain_over_seeds(at_80["magnitude"], at_80["compensated"]))
for name, reached in at_80.items():
    metric(f"{name}_80.accuracy", cl.mean_over_seeds(reached))

# %% tags=["nbval-check-output"]
verdict(
    "making up for what is gone helps, and not by chance",
    cl.gain_over_seeds(at_80["compensated"], at_80["magnitude"]).low > 0,
)

# %% [markdown]
# The same masks, `80%` of every layer, no training: {{ magnitude_80.accuracy | percent }} if the others stay as they are,
# {{ compensated_80.accuracy | percent }} if they make up for it.
#
# One more criterion, which needs no labels: *Wanda* ([Sun et al. 2023](https://arxiv.org/abs/2306.11695)) asks how large
# the inputs are, and scores |w| times their norm. Now all side by side, with *random* as the control. What do they cost,
# in forward passes over the same images?

# %%
# About 20 seconds.
looked = data.train.first(50)
evidences = {
    "wanda": p.input_norms,
    "taylor": p.mean_gradients,
    "obd": p.squared_gradients,
    "obs": p.gram_matrices,
}
for name, evidence in evidences.items():
    asked = cl.speedup(
        lambda x, ask=evidence: ask(baseline, looked.batches()), baseline, looked.inputs(), rounds=5
    )
    metric(f"{name}.passes", asked)

# %% [markdown]
# What are they worth? First with the masks alone, on single weights. Who is no better than chance?

# %%
curves.draw_accuracy_by_sparsity(
    {c: experiments.masked_curve(results, c, "fine") for c in experiments.CRITERIA}, baseline=known
)

# %% [markdown]
# And after one pass of training, against random: first single weights, `90%` of them gone, then whole filters, `70%`.

# %%
tuned = {
    (c, g): experiments.tuned_accuracies(results, c, g, s)
    for c in experiments.CRITERIA
    for g, s in (("fine", 0.9), ("channel", 0.7))
}
gains = {
    (c, g): cl.gain_over_seeds(runs, tuned["random", g]) for (c, g), runs in tuned.items() if c != "random"
}
for (c, g), gain in gains.items():
    metric(f"{c}_{g}.gain", gain)
for c in ("random", "gradient"):
    metric(
        f"{c}_vs_magnitude.drop_difference", cl.gain_over_seeds(tuned["magnitude", "fine"], tuned[c, "fine"])
    )
metric(
    "obd_vs_magnitude.drop_difference", cl.gain_over_seeds(tuned["magnitude", "fine"], tuned["obd", "fine"])
)

# %%
label = "gain in test accuracy, points"
gains_as.draw_gains({c: gain for (c, g), gain in gains.items() if g == "fine"}, label=label, against="random")

# %%
gains_as.draw_gains(
    {c: gain for (c, g), gain in gains.items() if g == "channel"}, label=label, against="random"
)

# %% [markdown]
# | criterion | looks at | forward passes | single weights, `90%` gone | channels, `70%` gone |
# |---|---|---|---|---|
# | random | nothing | 0 | 0 | 0 |
# | magnitude | weights | 0 | {{ magnitude_fine.gain | points }} | {{ magnitude_channel.gain | points }} |
# | gradient alone | images, labels | {{ taylor.passes | number }} | {{ gradient_fine.gain | points }} | {{ gradient_channel.gain | points }} |
# | Taylor | weights, images, labels | {{ taylor.passes | number }} | {{ taylor_fine.gain | points }} | {{ taylor_channel.gain | points }} |
# | OBD | the same, image by image | {{ obd.passes | number }} | {{ obd_fine.gain | points }} | {{ obd_channel.gain | points }} |
# | Wanda | weights, images | {{ wanda.passes | number }} | {{ wanda_fine.gain | points }} | {{ wanda_channel.gain | points }} |
#
# (Gains over random, after the pass of training. The surgeon's evidence takes {{ obs.passes | number }} passes.) On single
# weights, what asks the labels does no better here than throwing dice, or worse; on filters the dice can hardly be told
# from the rest. One reason: this network already knows nearly all of its training images, and those have next to no
# gradient. How much of the evidence comes from how few?

# %%
z = torch.cat([baseline(images).detach() for images, _ in some.batches()])
pull = (
    (z.softmax(dim=1) - nn.functional.one_hot(some.labels, 10))
    .square()
    .sum(dim=1)
    .sort(descending=True)
    .values
)
metric("hardest_images.share", float(pull[:25].sum() / pull.sum()))

# %% [markdown]
# The hardest `25` of `500` images make {{ hardest_images.share | percent }} of the squared pull on the answers: such a
# score knows what they need, and little of the others. (Papers that prune by gradients remove little at a time, and ask
# anew after each step.) Try the rest yourself: the mask is computed live, the accuracy was recorded with the masks alone.

# %%
recorded = {
    (c, g): experiments.masked_curve(results, c, g)
    for c in experiments.CRITERIA
    for g in experiments.GRANULARITIES
}
live = {
    c: score(baseline, data.train.first(100), 0)["blocks.3.conv2"]
    for c, score in experiments.CRITERIA.items()
}
scenes.explore_pruning(middle, recorded, scores=live, baseline=known)

# %%
scenes.draw_pruning(
    middle, recorded, scores=live, baseline=known, criterion="obd", granularity="kernel", sparsity=0.7
)

# %% [markdown]
# ## Prune, train, repeat
#
# After pruning comes training, and an optimizer knows nothing of dead weights: a gradient, or the velocity left from
# earlier steps, brings them back. Write the step that doesn't.


# %% exercise="masked_step"
def masked_step(
    weight: Tensor,
    gradient: Tensor,
    velocity: Tensor,
    mask: Tensor,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor]:
    """Weight and velocity after a step of SGD that leaves dead weights dead. About 3 lines.

        velocity ← momentum · velocity + gradient + weight_decay · weight
        weight   ← weight - learning_rate · velocity
        both are 0 wherever the mask is False

    A dead weight may come with any value: perhaps it has died only now, and still moves. After the step it is 0, and
    so is its velocity, so that nothing drives it at the next step.

    Args:
        weight: floats of any shape; not changed, like all four.
        gradient: of the loss by the weight, in the same shape.
        velocity: what earlier steps left, in the same shape.
        mask: bool, in the same shape: True is a weight that stays.
        learning_rate: how far a step goes.
        momentum: the share of the velocity that goes on, in [0, 1).
        weight_decay: the pull towards 0, at least 0.

    Returns:
        (weight, velocity), two new tensors in the shape and dtype of weight.
    """
    ### BEGIN SOLUTION
    velocity = momentum * velocity + gradient + weight_decay * weight
    weight = weight - learning_rate * velocity
    return weight * mask, velocity * mask
    ### END SOLUTION


# %%
mask, loose = yours.magnitude_mask(middle, sparsity=0.9), middle.clone()
held, velocity = middle * mask, torch.randn(middle.shape) / 100  # left over from the training before
loose_velocity, settings = velocity, {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
loose = loose * mask
for _ in range(20):
    gradient = slopes["blocks.3.conv2"]
    held, velocity = yours.masked_step(held, gradient, velocity, mask, **settings)
    loose, loose_velocity = yours.masked_step(
        loose, gradient, loose_velocity, torch.ones_like(mask), **settings
    )
print(
    f"dead weights that live again after 20 steps: {int((loose[~mask] != 0).sum()):,}; held by the mask: {int((held[~mask] != 0).sum())}"
)

# %% [markdown]
# Whoever prunes a little, trains a little and prunes again, has to decide how fast to go. At first there is much that
# nobody misses, and later every weight counts: so the steps become smaller and smaller ([Zhu and Gupta
# 2017](https://arxiv.org/abs/1710.01878)). A bonus.


# %% exercise="cubic_sparsity"
def cubic_sparsity(step: int, *, begin: int, steps: int, initial: float, final: float) -> float:
    """The sparsity that a network should have at this step of its training. About 2 lines.

        p        = (step - begin) / steps          kept between 0 and 1
        sparsity = final + (initial - final) · (1 - p)³

    So it is initial at begin and at any step before, and final at begin + steps and ever after.

    Args:
        step: of the training, counted from 0.
        begin: the step at which the schedule begins.
        steps: how many steps it lasts, at least 1.
        initial: the sparsity before, a fraction.
        final: the sparsity afterwards, a fraction.

    Returns:
        A fraction, a float. From 0 to 0.8, halfway: 0.7.
    """
    ### BEGIN SOLUTION
    done = min(max((step - begin) / steps, 0.0), 1.0)
    return final + (initial - final) * (1 - done) ** 3
    ### END SOLUTION


# %%
# About 20 seconds: 95% at once, and a short training with the masks held.
masks = dict(zip(layers, yours.global_masks(weights, sparsity=0.95), strict=True))
precision = cl.fast_precision()
short = p.fit_masked(
    baseline, masks, data.train.first(8000), few, epochs=2, learning_rate=0.0125, precision=precision
).model
before, reached = cl.accuracy(p.masked(baseline, masks), few), cl.accuracy(short, few)
print(f"95% gone: {before:.1%} right; after two passes over 8,000 images: {reached:.1%}")
assert reached > before
assert all((p.masks_of(short)[name] <= mask).all() for name, mask in masks.items())

# %% [markdown]
# One layer's weights before, after, and after the training. Look between the dashed lines.

# %%
networks = (baseline, p.masked(baseline, masks), short)
scenes.draw_weight_histograms(
    *(network.get_submodule("blocks.5.conv2").weight.detach() for network in networks)
)

# %% [markdown]
# The little weights in the middle are gone, and those that are left move, some of them across the gap, to do the work of
# the others. Longer runs are stored (`compresslab train 03_pruning`), and we measure their networks again. The learning
# rate of each was chosen by validation. (The last three are cut, not masked; they come from the next section.)

# %%
# About 40 seconds.
names = (
    "fine_90",
    "fine_95_oneshot",
    "fine_95_iterative",
    "nm_2_4",
    "channel",
    "channel_any_width",
    "torch_pruning",
)
whole = cl.measure(baseline, data.test, name="baseline", rounds=9)
measured = {
    name: cl.measure(experiments.load_network(name), data.test, name=name, rounds=9) for name in names
}

# %%
drops = {name: cl.accuracy_drop(whole, found) for name, found in measured.items()}
ratios = {name: whole.storage_bytes / found.storage_bytes for name, found in measured.items()}
for name in names:
    metric(f"{name}.drop", drops[name])
    metric(f"{name}.file_ratio", ratios[name])
in_steps = cl.accuracy_drop(measured["fine_95_oneshot"], measured["fine_95_iterative"])
metric("iterative_vs_oneshot.drop_difference", in_steps)

# %% tags=["nbval-check-output"]
stored = {name: experiments.values(results, "networks", name)[0] for name in names}
again = all(abs(measured[name].accuracy - stored[name]) < 0.002 for name in names)
verdict("measured again, every network is as accurate as when it was stored", again)
verdict("90% zeros cost at most half a point", drops["fine_90"].value <= 0.005)
verdict("their file is at least six times smaller", ratios["fine_90"] >= 6)
verdict("95% in steps cost at most a point", drops["fine_95_iterative"].value <= 0.010)
verdict("95% in steps cost no more than at once", in_steps.value <= 0)
verdict("two of four cost at most 0.3 points", drops["nm_2_4"].value <= 0.003)

# %% tags=["nbval-check-output"]
for name in ("fine_90", "fine_95_oneshot", "fine_95_iterative", "nm_2_4"):
    alive = {layer: int(mask.sum()) for layer, mask in p.masks_of(measured[name].model).items()}
    print(f"{name}: {sum(alive.values()):,} weights left, {alive['stem.0']} of {sizes['stem.0']} in the stem")

# %% [markdown]
# `90%` zeros, in six steps, `20` passes in all: {{ fine_90.drop | points }} lost (from {{ fine_90.drop.low | points }} to
# {{ fine_90.drop.high | points }}), and the file, written without its zeros, is {{ fine_90.file_ratio | times }} smaller.
# `95%`: {{ fine_95_oneshot.drop | points }} lost at once, {{ fine_95_iterative.drop | points }} in six steps, `24` passes
# each, and the file {{ fine_95_iterative.file_ratio | times }} smaller. Two of four, wherever four divides the inputs, six
# passes: {{ nm_2_4.drop | points }} lost (from {{ nm_2_4.drop.low | points }} to {{ nm_2_4.drop.high | points }}), the
# file {{ nm_2_4.file_ratio | times }} smaller.
#
# ### Is it the weights, or the shape?
#
# What do we inherit from the large network: its weights, or only where the zeros are? *Fine-tuned* goes on from the
# trained weights. With the same masks, *rewound* goes back to the weights after the first pass of training ([Renda et al.
# 2020](https://arxiv.org/abs/2003.02389)), *from the start* to the very first ones, the *lottery ticket* ([Frankle and
# Carbin 2018](https://arxiv.org/abs/1803.03635)); *other weights* never were its own. All take six passes at the rate of
# the first training, on the small student, with `80%` of its weights gone.

# %%
fine_tuned = experiments.values(results, "lottery", key="fine_tuned")
tickets = ("rewound", "from_the_start", "other_weights")
lottery = {
    name: cl.gain_over_seeds(experiments.values(results, "lottery", key=name), fine_tuned) for name in tickets
}
for name, gain in lottery.items():
    metric(f"{name}.gain", gain)
runs = [experiments.values(results, "lottery", key=name) for name in ("from_the_start", "other_weights")]
metric("ticket_vs_other_weights.gain", cl.gain_over_seeds(*runs))
gains_as.draw_gains({n.replace("_", " "): g for n, g in lottery.items()}, label=label, against="fine-tuned")

# %% [markdown]
# Rewound {{ rewound.gain | points }}, from the start {{ from_the_start.gain | points }}, other weights
# {{ other_weights.gain | points }}: against these the very first weights gain {{ ticket_vs_other_weights.gain | points }}
# (from {{ ticket_vs_other_weights.gain.low | points }} to {{ ticket_vs_other_weights.gain.high | points }}). (The papers
# prune in many rounds, and rewind after each; here it is one.) And a thin network, half of its MACs cut out by channels: is it worth inheriting its
# weights, or could one train it from nothing ([Liu et al. 2018](https://arxiv.org/abs/1810.05270))?

# %%
thin_tuned = experiments.values(results, "lottery", key="channels_fine_tuned")
for name in ("from_scratch", "from_scratch_longer"):
    runs = experiments.values(results, "lottery", key=f"channels_{name}")
    metric(f"{name}.gain", cl.gain_over_seeds(runs, thin_tuned))

# %% [markdown]
# From nothing: {{ from_scratch.gain | points }} (from {{ from_scratch.gain.low | points }} to
# {{ from_scratch.gain.high | points }}) in as many passes as the fine-tuning had, {{ from_scratch_longer.gain | points }}
# (from {{ from_scratch_longer.gain.low | points }} to {{ from_scratch_longer.gain.high | points }}) in as many as training
# and fine-tuning had together.
#
# ## Channels really go
#
# A channel can be taken out, and an ordinary, thinner network is left. But a residual block ends in a sum, and a sum adds
# channel 0 to channel 0: whoever removes a channel on one side must remove it on the other. So before anything is cut, we
# ask which convolutions hang together.


# %% exercise="residual_groups"
def residual_groups(operations: list[tuple[str, str, list[str]]]) -> list[list[str]]:
    """Which convolutions must lose the same output channels. About 7 lines.

    A "conv" makes new channels. Every other kind hands on the channels of what it reads: "norm", "relu", "pool",
    "flatten", "linear" (the last one, which makes the logits) read one value, "add" reads two or more.

        writers(value) = {value}                                      where a conv makes the value
                         the union of writers(x) over its inputs x    where another kind does;  writers("input") = {}

    All writers of an add go together. Two groups that share a convolution are one group, however many sums lie
    between; a convolution that no add ties to another is a group of one.

    Args:
        operations: (name, kind, inputs) in the order in which they run. The name is also that of the value it makes,
            inputs are the names of the values it reads; the network's own input is called "input", and no add reads
            it as it came. Not changed.

    Returns:
        The groups: each a sorted list of the convolutions' names; every convolution is in just one. The groups may
        come in any order.
    """
    ### BEGIN SOLUTION
    writers, groups = {"input": set()}, []
    for name, kind, inputs in operations:
        writers[name] = {name} if kind == "conv" else set().union(*(writers[x] for x in inputs))
        if kind in ("conv", "add"):
            tied = [group for group in groups if group & writers[name]]
            groups = [group for group in groups if group not in tied] + [writers[name].union(*tied)]
    return [sorted(group) for group in groups]
    ### END SOLUTION


# %%
block = [
    ("stem", "conv", ["input"]),
    ("a", "conv", ["stem"]),
    ("b", "conv", ["a"]),
    ("sum 1", "add", ["b", "stem"]),
    ("c", "conv", ["sum 1"]),
    ("d", "conv", ["c"]),
    ("sum 2", "add", ["d", "sum 1"]),
]
print("two blocks in a row:", yours.residual_groups(block))
groups = p.dependency_groups(baseline)
print(f"\nOne of the baseline's {len(groups)} groups:\n{groups['blocks.5.conv2']}")

# %% [markdown]
# All of these lose the same channels, or the network does not run. Now cut: one convolution, its BatchNorm, and the
# convolution that reads it. (Setting a filter to zero would not do: BatchNorm still sends on a constant in its place.)


# %% exercise="remove_channels"
def remove_channels(
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    next_weight: Tensor,
    keep: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The six tensors of convolution, BatchNorm and next convolution, with fewer channels between them. About 1 line.

        z = BatchNorm(conv(x, weight); gamma, beta, mean, variance)          (images, out, height, width)
        y = conv(relu(z), next_weight)                                     (images, next_out, height, width)

    A channel c with keep[c] = False goes. With your smaller tensors z holds just the channels that stay, in their old
    order, and y is what the large network gives when relu(z) is multiplied by 0 in the channels that go.

    Args:
        weight: (out, in, height, width) of a convolution without bias, as is usual before BatchNorm.
        gamma: (out,), BatchNorm's weight.
        beta: (out,), BatchNorm's bias.
        mean: (out,), BatchNorm's running mean.
        variance: (out,), BatchNorm's running variance.
        next_weight: (next_out, out, height, width) of the convolution that reads the channels; its outputs all stay.
        keep: (out,), bool: True is a channel that stays; at least one does. No argument is changed.

    Returns:
        The smaller weight, gamma, beta, mean, variance and next_weight, in this order.
    """
    ### BEGIN SOLUTION
    return weight[keep], gamma[keep], beta[keep], mean[keep], variance[keep], next_weight[:, keep]
    ### END SOLUTION


# %% [markdown]
# Try it on a block. Which channels go? Those that BatchNorm passes on most faintly, with the smallest |γ| (*network
# slimming*, [Liu et al. 2017](https://arxiv.org/abs/1708.06519)). The thin block must say what the whole one says when
# these channels are silent.

# %%
conv1, norm, conv2 = (baseline.get_submodule(f"blocks.2.{part}") for part in ("conv1", "norm1", "conv2"))
keep = yours.magnitude_mask(norm.weight.detach(), sparsity=0.5)
tensors = (conv1.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var, conv2.weight)
thin = yours.remove_channels(*(t.detach() for t in tensors), keep)


def through(w, gamma, beta, mean, variance, after):
    z = nn.functional.conv2d(torch.linspace(-2, 2, 32 * 49).reshape(1, 32, 7, 7), w, padding=1)
    return nn.functional.conv2d(
        nn.functional.batch_norm(z, mean, variance, gamma, beta).relu(), after, padding=1
    )


# %% tags=["nbval-check-output"]
silent = (conv1.weight, norm.weight * keep, norm.bias * keep, *tensors[3:])
verdict("the thin block says the same, to 1e-5", bool((through(*silent) - through(*thin)).abs().max() < 1e-5))
print("before:", *(tuple(t.shape) for t in (conv1.weight, conv2.weight)))
print("after: ", *(tuple(t.shape) for t in (thin[0], thin[-1])))

# %% [markdown]
# And the whole network, half of every group. Your third bet was on what share of the weights is left.

# %% tags=["nbval-check-output"]
scores = {name: p.channel_scores(group, p.magnitudes(baseline)) for name, group in groups.items()}
half = p.remove_channels(baseline, p.keep_channels(scores, sparsity=0.5))
for name, network in (("baseline", baseline), ("half its channels", half)):
    print(f"{name}: {cl.count_parameters(network):,} parameters, {cl.count_macs(network, one):,} MACs")

# %%
share = cl.count_parameters(half) / cl.count_parameters(baseline)
metric("half_channels.parameters_left", share)
print(f"your bet: {guess_left:.0%}; measured: {share:.0%}")

# %% [markdown]
# A masked layer with half of its channels at zero has half of its weights left; a network with half of its channels cut
# out has {{ half_channels.parameters_left | percent }}. Why? (A bonus.)


# %% exercise="why_a_quarter_is_left"
def why_a_quarter_is_left() -> str:
    """The letter of the right answer: "a", "b", "c", "d", "e" or "f"."""
    ### BEGIN SOLUTION
    return "c"
    ### END SOLUTION


# %% [markdown]
# Cutting breaks the network, of course. Part of the damage is only that the BatchNorms still expect the sums of all
# channels; let them look at some images again, before any weight is trained. And which channels should go? L1 and L2 sum
# the magnitudes and their squares over all that a channel takes with it.

# %%
# About 20 seconds: a fifth of every group gone, right before and after the norms looked again.
criteria = {
    "random": experiments.CRITERIA["random"](baseline, some, 0),
    "L1": p.magnitudes(baseline),
    "L2": {name: p.magnitude(layer.weight, power=2) for name, layer in layers.items()},
    "Taylor": experiments.CRITERIA["taylor"](baseline, some, 0),
    "BatchNorm scale": {
        n: p.batch_norm_scale(m.weight) for n, m in baseline.named_modules() if isinstance(m, nn.BatchNorm2d)
    },
}
for name, by_weight in criteria.items():
    by_channel = {group: p.channel_scores(members, by_weight) for group, members in groups.items()}
    cut = p.remove_channels(baseline, p.keep_channels(by_channel, sparsity=0.2))
    fresh = p.recalibrate_batch_norm(cut, data.train.first(1000).batches())
    metric(f"cut_by_{name.lower().replace(' ', '_')}.accuracy", cl.accuracy(cut, few))
    metric(f"cut_by_{name.lower().replace(' ', '_')}.recalibrated_accuracy", cl.accuracy(fresh, few))

# %% [markdown]
# With a fifth of every group gone by L1, {{ cut_by_l1.accuracy | percent }} right on validation; after the norms' look,
# {{ cut_by_l1.recalibrated_accuracy | percent }}. (By L2 {{ cut_by_l2.recalibrated_accuracy | percent }}, Taylor
# {{ cut_by_taylor.recalibrated_accuracy | percent }}, BatchNorm's scale
# {{ cut_by_batchnorm_scale.recalibrated_accuracy | percent }}, random {{ cut_by_random.recalibrated_accuracy | percent }}.)
# Then train. The three networks that are stored had `24` passes, at half of the MACs. Are they faster? In PyTorch, and in
# an engine that folds BatchNorm away:

# %%
# About 20 seconds.
cut_networks = {name: measured[name].model for name in ("channel", "channel_any_width")}
for name, network in cut_networks.items():
    deploy.write_onnx(fold_batch_norm(network), folder / f"{name}.onnx")
    metric(f"{name}.macs_ratio", whole.macs_per_sample / measured[name].macs_per_sample)
    metric(f"{name}.parameters_ratio", whole.parameters / measured[name].parameters)
    metric(f"{name}.speedup_batch64", cl.speedup(baseline, network, batch, rounds=11))
    in_engine = cl.speedup(engine["whole"], deploy.load_deployed(folder / f"{name}.onnx"), batch, rounds=11)
    metric(f"{name}.speedup_batch64_onnx", in_engine)

# %%
theirs = measured["torch_pruning"]
metric(
    "channel_vs_torch_pruning.drop_difference", cl.accuracy_drop(theirs, measured["channel"])
)  # our drop less theirs
metric(
    "channel_any_width_vs_torch_pruning.drop_difference",
    cl.accuracy_drop(theirs, measured["channel_any_width"]),
)

# %% tags=["nbval-check-output"]
for name, network in cut_networks.items():
    widths = [group.channels for group in p.dependency_groups(network).values()]
    print(
        f"{name}: {measured[name].parameters:,} parameters, {measured[name].macs_per_sample:,} MACs, widths {widths}"
    )
verdict(
    "at least half of the MACs are gone", whole.macs_per_sample >= 2 * measured["channel"].macs_per_sample
)
verdict("it costs at most half a point", drops["channel"].value <= 0.005)
ours = cl.accuracy_drop(theirs, measured["channel"]).value
verdict("torch-pruning's channels are not better by more than 0.2 points", ours <= 0.002)

# %% [markdown]
# {{ channel.macs_ratio | times }} fewer MACs, {{ channel.parameters_ratio | times }} fewer parameters,
# {{ channel.drop | points }} lost (from {{ channel.drop.low | points }} to {{ channel.drop.high | points }}), and at
# batches of `64` {{ channel.speedup_batch64 | times }} faster in PyTorch (from {{ channel.speedup_batch64.low | times }}
# to {{ channel.speedup_batch64.high | times }}), {{ channel.speedup_batch64_onnx | times }} in ONNX Runtime. Against the
# channels that torch-pruning chooses, with no fewer MACs and the same training, the difference in what is lost is
# {{ channel_vs_torch_pruning.drop_difference | points }} (from {{ channel_vs_torch_pruning.drop_difference.low | points }}
# to {{ channel_vs_torch_pruning.drop_difference.high | points }}; below 0 is in our favour).
#
# All its widths are multiples of eight, and that is no accident. `channel_any_width` has as few MACs, loses
# {{ channel_any_width.drop | points }}, and takes the widths as the scores give them: it is
# {{ channel_any_width.speedup_batch64 | times }} as fast as the baseline in PyTorch, and
# {{ channel_any_width.speedup_batch64_onnx | times }} in ONNX Runtime, probably because its kernels work on blocks of
# channels, and a width that is no multiple of the block takes a slower path. MACs are not time.
#
# ## What pays
#
# Four networks side by side: what each loses, against the bytes of its file; then against its time.

# %%
# About 10 seconds.
report = cl.compare(
    whole, *(measured[name] for name in ("fine_90", "fine_95_iterative", "nm_2_4", "channel")), rounds=9
)
report

# %%
report.draw()

# %%
# About 15 seconds.
spent = {"baseline": (1.0, whole.accuracy)}
for row in report.rows[1:]:
    faster = cl.speedup(baseline, measured[row.name].model, batch, rounds=5)
    spent[row.name] = (cl.Interval(1 / faster.value, 1 / faster.high, 1 / faster.low), row.accuracy)
time = "time of a batch of 64 in PyTorch, as a share of the baseline's"
curves.draw_tradeoffs(spent, baseline="baseline", xlabel=time)

# %% [markdown]
# So it hangs on what you pay for. For the file, scatter zeros as you like, and write it without them. For the clock on an
# ordinary machine, cut channels, to widths that the kernels like. Both together, and fewer bits on top, is a later lab.
#
# ## What we claimed, what we measured
#
# | claim | what we measured | verdict |
# |---|---|---|
# | "Zeros make the file small." | a mask: {{ masked.file_ratio | times }}; written without its zeros, at `90%`: {{ fine_90.file_ratio | times }} | holds only if the file leaves them out, and places cost room |
# | "Zeros make the network fast." | a mask: {{ masked.speedup | times }}; sparse products at `90%` and `98%`: a linear layer {{ csr_linear_90.speedup | times }} and {{ csr_linear_98.speedup | times }}, a convolution {{ csr_convolution_90.speedup | times }} and {{ csr_convolution_98.speedup | times }} | never for a mask; with sparse kernels only a linear layer, where few weights are left |
# | "Fine-grained pruning keeps accuracy best." | at `90%`, after one pass, less than single weights reach: vectors {{ tuned_vector_90.lost | points }}, kernels {{ tuned_kernel_90.lost | points }}, channels {{ tuned_channel_90.lost | points }} | holds |
# | "Structured pruning needs no special hardware." | channels: {{ channel.speedup_batch64 | times }} in PyTorch, {{ channel.speedup_batch64_onnx | times }} in ONNX Runtime, for {{ channel.macs_ratio | times }} fewer MACs; of any width {{ channel_any_width.speedup_batch64_onnx | times }} | holds for whole channels, at widths that the kernels like |
# | "Half the channels, half the parameters." | {{ half_channels.parameters_left | percent }} are left | does not hold: layers lose rows and columns |
# | "2:4 costs next to nothing." | {{ nm_2_4.drop | points }} lost, file {{ nm_2_4.file_ratio | times }} | holds for accuracy; faster only on processors that have the instruction |
# | "One threshold for the whole network is better than one a layer." | {{ one_threshold.gain | points }} (from {{ one_threshold.gain.low | points }} to {{ one_threshold.gain.high | points }}) | holds: layers do not bear the same share |
# | "A small gradient means unimportant." | against random {{ gradient_fine.gain | points }}, against magnitude {{ gradient_vs_magnitude.drop_difference | points }} lost | does not hold: here it is worse than chance |
# | "Second order knows better." | OBD against magnitude, after one pass of training, {{ obd_vs_magnitude.drop_difference | points }} lost, for {{ obd.passes | number }} passes; making up before training, from {{ magnitude_80.accuracy | percent }} to {{ compensated_80.accuracy | percent }} | holds for making up; OBD's scores of single weights, asked once of a trained network, do not beat magnitude here |
# | "Random is as good, if one trains afterwards." | against magnitude {{ random_vs_magnitude.drop_difference | points }} lost at `90%` | does not hold after so little training |
# | "In steps is better than at once." | at `95%`, in steps less at once: {{ iterative_vs_oneshot.drop_difference | points }} (from {{ iterative_vs_oneshot.drop_difference.low | points }} to {{ iterative_vs_oneshot.drop_difference.high | points }}), with the same passes | no difference here that the interval could tell |
# | "The winning ticket is in the first weights." | the masks with the first weights against other weights {{ ticket_vs_other_weights.gain | points }} (from {{ ticket_vs_other_weights.gain.low | points }} to {{ ticket_vs_other_weights.gain.high | points }}), against the trained ones {{ from_the_start.gain | points }} | not seen here, pruned in one round: the first weights do not differ from others, the trained ones are worth more |
# | "Pruned channels are worth inheriting." | thin from nothing: {{ from_scratch.gain | points }} in as many passes, {{ from_scratch_longer.gain | points }} in as many as training and fine-tuning together | holds for as many passes after the cut; counted in all, the thin network learns as well from nothing |
#
# ## Have it marked
#
# {{ check }}
