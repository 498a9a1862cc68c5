# %% [markdown]
# # Thinner layers
#
# A layer with a thousand inputs and a thousand outputs could do a thousand different things at once. Most trained
# layers do far fewer: what they do happens along some directions, and the rest is nearly nothing. Then one thick layer
# can be written as two or three thin ones. Nothing is set to zero and nothing is rounded; the same function, or nearly
# the same, is multiplied out in another order.
#
# This lab asks three things of every such factorisation: how near it comes, how thin it may be before accuracy goes,
# and whether fewer multiplications take less time. The last answer may surprise you, so bet first.
#
# {{ lab }}

# %%
import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import compresslab as cl
from compresslab import deployment as deploy
from compresslab.course.figures import gains as gains_as
from compresslab.course.figures.guesses import draw_guesses
from compresslab.course.low_rank import figures as scenes
from compresslab.course.low_rank import tradeoff_figures as curves
from compresslab.experiments import low_rank as experiments
from compresslab.notebook import lab, metric, verdict
from compresslab.techniques import low_rank as thin
from compresslab.techniques.quantization import fold_batch_norm

# %%
check, hint, reveal, yours = lab("04_low_rank")
data = cl.fashion_mnist()
baseline, perceptron, results = cl.load_baseline(), cl.load_baseline("mlp"), experiments.load_results()
few = data.validation.first(2000)  # to look at; what we claim is measured on test
one, batch = data.test.first(1).inputs(), data.test.first(64).inputs()


def with_weight(model: nn.Module, name: str, weight: Tensor) -> nn.Module:
    """A copy of the network with another weight in that layer."""
    changed = copy.deepcopy(model)
    changed.get_submodule(name).weight.data = weight
    return changed


# %% [markdown]
# A square layer is split into two at half of its rank: how many times fewer weights? A convolution is taken apart by
# CP, which comes later, so that it has `8.6` times fewer multiplications: how many times faster is it?

# %%
guess = {"half of the rank: times fewer weights": 2.0, "8.6 times fewer MACs: times faster": 8.6}  # your bets

# %% [markdown]
# ## One layer as two
#
# Take a linear layer y = W x, with m outputs and n inputs: m · n numbers. Two thin layers one behind the other, n to r
# and r to m, do the same if W is their product. The singular value decomposition sorts what W does by its strength,
# direction by direction; the first r of them make the pair that comes nearest, in squared difference (Eckart and Young
# 1936; for networks [Denton et al. 2014](https://arxiv.org/abs/1404.0736)). Give each layer the root of every strength:
# then neither has huge weights and the other tiny ones.


# %% exercise="truncated_svd"
def truncated_svd(weight: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """Two thin layers for one: second @ first is the matrix of this rank nearest to weight. About 6 lines.

        weight = U @ diag(s) @ Vᵀ           s_0 ≥ s_1 ≥ … ≥ 0; U has orthonormal columns, Vᵀ orthonormal rows
        first  = √s_k · (row k of Vᵀ)       a row for each k = 0 … rank - 1, where the input enters
        second = (column k of U) · √s_k     a column for each k = 0 … rank - 1, where the output leaves

    So each of the two carries the root of the singular values: first @ firstᵀ = secondᵀ @ second = diag(s_0 … ).
    A pair u_k, v_k is free in its sign: any will do.

    Args:
        weight: (out, in), floats; not changed.
        rank: 1 to min(out, in), both included.

    Returns:
        (first, second), (rank, in) and (out, rank), in the dtype of weight.

    Raises:
        ValueError: a rank below 1 or above min(out, in); it is never clipped in silence.
    """
    ### BEGIN SOLUTION
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(f"rank is 1 to {min(weight.shape)}, got {rank}")
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    root = s[:rank].sqrt()
    return root[:, None] * vt[:rank], u[:, :rank] * root
    ### END SOLUTION


# %%
# About 5 seconds.
w = perceptron[3].weight.detach()  # (1024, 1024), the middle layer of a perceptron
known = cl.accuracy(perceptron, few)
print(f"whole: {w.numel():,} weights, {known:.1%} right")
for rank in (512, 128, 32, 8):
    first, second = yours.truncated_svd(w, rank=rank)
    reached = cl.accuracy(with_weight(perceptron, "3", second @ first), few)
    print(f"rank {rank}: {first.numel() + second.numel():,} weights, {reached:.1%} right")

# %% [markdown]
# A few dozen directions of a thousand do nearly all of the work of this layer. But rank `512` is half of the full one:
# look at the weights beside it. Was that your bet? Two layers in the place of one are not smaller by themselves. There
# is a rank where both are even, and only below it does anything shrink. (A convolution counts too: give its weight a
# row for each output, and put all of (in, h, w) into the columns.)


# %% exercise="break_even_rank"
def break_even_rank(outputs: int, inputs: int) -> int:
    """The largest rank at which the two thin layers have fewer weights than the whole one. About 1 line.

        the whole layer   outputs · inputs weights
        the thin layers   rank · inputs  +  outputs · rank weights
        the answer        the largest rank = 1, 2, … with fewer weights in the thin layers,   0 if there is none

    Fewer is meant strictly: where both are equal nothing is saved. Biases do not count, there are as many as before.

    Args:
        outputs: of the layer, at least 1.
        inputs: of the layer, at least 1.

    Returns:
        The rank, an int. Of 3 outputs and 6 inputs it is 1: rank 2 has 18 weights too.
    """
    ### BEGIN SOLUTION
    return (outputs * inputs - 1) // (outputs + inputs)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
for name, layer in {"square": perceptron[3], "wide": baseline.blocks[6].conv2, "last": perceptron[7]}.items():
    out, inputs = layer.weight.flatten(1).shape
    print(
        f"{name} ({out} × {inputs}): saves up to rank {yours.break_even_rank(out, inputs)} of {min(out, inputs)}"
    )
first, second = yours.truncated_svd(w, rank=512)
half = first.numel() + second.numel()
print(f"half of the rank: {half:,} weights; before: {w.numel():,}")

# %%
metric("half_rank.weights_ratio", w.numel() / half)

# %% [markdown]
# The thin layers are smaller where r (m + n) < m · n, that is, where r < m · n / (m + n). At half of its rank a square
# layer has {{ half_rank.weights_ratio | times }} fewer weights: nothing was saved. Why? (A bonus. Draw the layers as
# rectangles before you answer.)


# %% exercise="why_half_rank_is_no_smaller"
def why_half_rank_is_no_smaller() -> str:
    """The letter of the right answer: "a", "b", "c", "d", "e" or "f"."""
    ### BEGIN SOLUTION
    return "e"
    ### END SOLUTION


# %% [markdown]
# A method that forgets this makes a network larger, and calls it compressed. Ours leaves a layer whole if it would not
# shrink, and says so:

# %% tags=["nbval-check-output"]
thin.factorization_table(perceptron, {"1": 300, "3": 512, "5": 128})

# %% [markdown]
# ## What is in a spectrum
#
# How much does a rank hold? The singular values say it before anything is built: their squares add up to the *energy*
# of the layer, and those that are dropped to the squared error. For every layer of both networks, beside a layer of
# random numbers of the same size (bet: which of the two networks is further from chance?):

# %%
# About 5 seconds.
torch.manual_seed(0)
layers = {name: layer for name, layer in baseline.named_modules() if isinstance(layer, nn.Conv2d)}
inner = {n: layer for n, layer in layers.items() if layer.kernel_size == (3, 3) and layer.in_channels > 1}
looked_at = {**layers, "head": baseline.head, **{f"perceptron {n}": perceptron[int(n)] for n in "1357"}}
matrices = {name: layer.weight.detach().flatten(1) for name, layer in looked_at.items()}
trained = {name: torch.linalg.svdvals(m) for name, m in matrices.items()}
random = {name: torch.linalg.svdvals(torch.randn_like(m)) for name, m in matrices.items()}
scenes.draw_spectra(trained, random)

# %% [markdown]
# The nearer a curve clings to the upper left corner, the fewer directions hold the layer. The rank that holds a given
# share of the energy is the commonest way to choose one.


# %% exercise="rank_for_energy"
def rank_for_energy(weight: Tensor, *, energy: float) -> int:
    """The smallest rank that keeps at least this share of the energy. About 2 lines.

        s      = the singular values of weight, s_0 ≥ s_1 ≥ …           torch.linalg.svdvals
        answer = the smallest rank = 1, 2, … with  s_0² + … + s_{rank-1}²  ≥  energy · (sum of all s²)

    A weight that is all zero has the energy 0, which rank 1 keeps: there the answer is 1.

    Args:
        weight: (out, in), floats; not changed.
        energy: the share to keep, a fraction, 0 < energy ≤ 1. In the check no
            share is so near to energy that rounding decides; where they are equal, they are so exactly.

    Returns:
        The rank, an int, 1 to min(out, in). With s = 4, 2, 2 (s² = 16, 4, 4) an energy of 0.8 takes rank 2.
    """
    ### BEGIN SOLUTION
    kept = torch.linalg.svdvals(weight).square().cumsum(0)  # (min,), of ranks 1, 2, …
    return int((kept < energy * kept[-1]).sum()) + 1
    ### END SOLUTION


# %%
torch.manual_seed(1)
shares = {}
for who, weights in {
    "perceptron": [perceptron[i] for i in (1, 3, 5)],
    "convolutions": list(inner.values()),
}.items():
    own = [layer.weight.detach().flatten(1) for layer in weights]
    for kind, ms in {"trained": own, "random": [torch.randn_like(m) for m in own]}.items():
        ranks = [yours.rank_for_energy(m, energy=0.9) / min(m.shape) for m in ms]
        shares[who, kind] = sum(ranks) / len(ranks)
        print(f"{who}, {kind}: 90% of the energy in {shares[who, kind]:.0%} of the ranks, on average")
for (who, kind), share in shares.items():
    metric(f"{who}_{kind}.rank_share", share)

# %% [markdown]
# `90%` of the energy takes {{ perceptron_trained.rank_share | percent }} of the perceptron's ranks, where chance takes
# {{ perceptron_random.rank_share | percent }}; and {{ convolutions_trained.rank_share | percent }} of the
# convolutions', where chance takes {{ convolutions_random.rank_share | percent }}. So by energy the perceptron looks
# almost random. And yet a few dozen of its directions were enough above: most of its energy lies in directions that its
# answers hardly need, perhaps left over from the random start. Energy looks at weights; it does not know what they are
# for. Keep that in mind. (A bonus: the error of *every* rank, without building one matrix.)


# %% exercise="dropped_error"
def dropped_error(weight: Tensor) -> Tensor:
    """The relative error of the nearest matrix of every rank, from the singular values alone. About 3 lines.

        W_r      = the matrix of rank r nearest to weight (W_0 is all zero); it need not be built
        error[r] = ‖weight - W_r‖ / ‖weight‖  =  √( (s_r² + s_{r+1}² + …) / (s_0² + s_1² + …) )    r = 0 … min(out, in)
        ‖·‖      = the Frobenius norm, the root of the sum of all squared entries

    So error[0] is 1, and the last one, of the full rank, is 0.

    Args:
        weight: (out, in), floats, not all zero; not changed.

    Returns:
        (min(out, in) + 1,) errors, in the dtype of weight.
    """
    ### BEGIN SOLUTION
    squares = torch.linalg.svdvals(weight).square()
    dropped = squares.flip(0).cumsum(0).flip(0)  # (min,), of ranks 0, 1, …, min - 1
    return torch.cat([dropped, dropped.new_zeros(1)]).div(squares.sum()).sqrt()
    ### END SOLUTION


# %% [markdown]
# What does a rank look like? Each little square is a kernel; a convolution's weight is a matrix with a row for each
# output. Go down to rank 1: every row is then the same, up to its strength. Where does the error rise, and where do the
# weights meet the dotted line?

# %%
bank = baseline.blocks[3].conv2.weight.detach()  # (64, 64, 3, 3)
scenes.explore_filters(bank)

# %%
scenes.draw_filters_at_rank(bank, rank=16)

# %% [markdown]
# ## Which layer gets how much
#
# One energy for all layers asks each of them alone, and never asks what a rank costs there. With a budget the layers
# compete: each further rank goes where it takes away the most error for its price. Errors are shares of each layer's
# own energy, or the layer with the largest weights would win. (Taking the best bargain each time is nearly right here,
# for a layer's own singular values only fall: at most the last bit of the budget is spent less than best.)


# %% exercise="spread_ranks"
def spread_ranks(spectra: list[Tensor], costs: list[int], budget: int) -> list[int]:
    """A rank for each layer: ranks are given one by one as long as they fit, the best bargain first. About 12 lines.

        every layer starts at rank 1; left = budget - sum(costs)
        repeat:
            a layer l of rank r may have one more if r < len(spectra[l]) and costs[l] ≤ left
            its gain is spectra[l][r]² / costs[l]             the error that this rank takes away, per MAC
            no layer may: stop;  else the one of largest gain: its rank + 1, left - costs[l]

    Where the best bargain of all is too dear for what is left, the best of those that fit gets its rank.

    Args:
        spectra: of each layer its singular values, (full rank,), floats above 0 that fall; they are scaled already, so
            that layers may be compared; not changed.
        costs: of each layer, the MACs of one rank, at least 1.
        budget: of MACs for all layers together, at least sum(costs). In the check no two layers' gains are equal.

    Returns:
        The rank of each layer, ints from 1 to len(spectra[l]), in the order of the layers.
    """
    ### BEGIN SOLUTION
    ranks, left = [1] * len(costs), budget - sum(costs)
    while True:
        gains = {
            layer: float(spectrum[ranks[layer]]) ** 2 / costs[layer]
            for layer, spectrum in enumerate(spectra)
            if ranks[layer] < len(spectrum) and costs[layer] <= left
        }
        if not gains:
            return ranks
        best = max(gains, key=lambda layer: gains[layer])
        ranks[best] += 1
        left -= costs[best]
    ### END SOLUTION


# %%
# About 5 seconds.
names = ("1", "3", "5")
weights = [perceptron[int(name)].weight.detach() for name in names]
spectra = [torch.linalg.svdvals(m) / m.norm() for m in weights]
costs = [sum(m.shape) for m in weights]  # weights, and MACs, of one rank
budget = sum(m.numel() for m in weights) // 4
plans = {
    "a quarter of each": [m.numel() // 4 // cost for m, cost in zip(weights, costs)],
    "spread": yours.spread_ranks(spectra, costs, budget),
}
for name, ranks in plans.items():
    network = thin.factorize(perceptron, dict(zip(names, ranks)))
    used = sum(r * cost for r, cost in zip(ranks, costs))
    print(f"{name}: ranks {ranks}, {used:,} weights, {cl.accuracy(network, few):.1%} right")

# %%
full = {f"layer {name}": min(m.shape) for name, m in zip(names, weights)}
scenes.draw_rank_plan({plan: dict(zip(full, ranks)) for plan, ranks in plans.items()}, full=full)

# %% [markdown]
# Four times fewer multiplications in these layers, and no training yet; which plan is better, so few images can't tell.
# For the convolutions we shall ask the network itself: make one layer thin at a time, see how far the answers move, and
# spend a budget of MACs where they move least (the scan of lab 03, with ranks in the place of zeros).
#
# ## The inputs have a say
#
# The nearest weight need not give the nearest outputs: an input that is hardly ever more than zero forgives an error in
# its weights, and a loud one does not. So we ask for the matrix whose *outputs* come nearest on inputs as the layer
# really sees them ([Wang et al. 2024](https://arxiv.org/abs/2403.07378)). All that it takes of the images is G = E[x
# xᵀ], the mean of each input times each other, which the surgeon of lab 03 asked for too. (Of a convolution, x is the
# patch of the picture under the kernel.) Write G = L Lᵀ: then W L is a weight for inputs that are alike in all
# directions (*white*), and for those the nearest matrix is the best one. Don't forget to undo the whitening.


# %% exercise="whitened_svd"
def whitened_svd(weight: Tensor, moments: Tensor, *, rank: int) -> Tensor:
    """The matrix of this rank whose outputs are nearest to those of weight. About 4 lines.

        wanted    V of the rank with the least  E ‖weight @ x - V @ x‖²  =  tr((weight - V) @ moments @ (weight - V)ᵀ)
        moments = L @ Lᵀ                    L (in, in), lower triangular: torch.linalg.cholesky(moments)
        A       = weight @ L                so the error is ‖A - V @ L‖², and V @ L should be the best for A:
        V       = A_rank @ L⁻¹              A_rank: the matrix of the rank nearest to A, from its SVD

    Args:
        weight: (out, in), floats; not changed.
        moments: (in, in), E[x xᵀ] over the inputs x of the layer, symmetric and positive definite; not changed.
        rank: 1 to min(out, in); others are not asked for.

    Returns:
        V, (out, in), in the dtype of weight: one matrix, the product of the two thin layers.
    """
    ### BEGIN SOLUTION
    lower = torch.linalg.cholesky(moments)  # (in, in)
    u, s, vt = torch.linalg.svd(weight @ lower, full_matrices=False)
    nearest = (u[:, :rank] * s[:rank]) @ vt[:rank]
    return torch.linalg.solve_triangular(lower, nearest, upper=False, left=False)
    ### END SOLUTION


# %%
# About 10 seconds.
moments = thin.gram_matrices(baseline, data.train.first(1000).batches())
unseen = thin.gram_matrices(baseline, few.batches())


def relative_errors(w: Tensor, versions: list[Tensor], g: Tensor) -> list[float]:
    return [float((thin.output_error(w, v, g) / thin.output_error(w, 0 * w, g)).sqrt()) for v in versions]


name = "blocks.5.conv2"
w, g = layers[name].weight.detach().flatten(1), moments[name]
solid = (g + 1e-6 * g.diagonal().mean() * torch.eye(len(g))).float()  # so that a root exists
tried = [1, 8, 16, 32, 48, 64, 96, 112]
nearest = {"nearest weight": [], "nearest outputs": []}
for rank in tried:
    first, second = yours.truncated_svd(w, rank=rank)
    nearest["nearest weight"].append(second @ first)
    nearest["nearest outputs"].append(yours.whitened_svd(w, solid, rank=rank))
seen = {way: relative_errors(w, versions, g) for way, versions in nearest.items()}
curves.draw_errors_by_rank(seen, ranks=tried, break_even=w.numel() / sum(w.shape), measured="outputs")

# %% [markdown]
# And for every `3 × 3` convolution, at several ranks: the *squared* error of the outputs, whitened over plain, at its
# worst. On the images that were asked it cannot be above 1. What about images that were not?

# %%
# About 15 seconds.
ratios = {"seen": [], "unseen": []}
for name, layer in inner.items():
    w = layer.weight.detach().flatten(1).double()
    for share in (0.05, 0.1, 0.25, 0.5, 0.75):
        rank = max(1, round(share * min(w.shape)))
        first, second = thin.truncated_svd(w, rank=rank)
        a, b = thin.whitened_svd(w, moments[name], rank=rank)
        for which, g in {"seen": moments[name], "unseen": unseen[name]}.items():
            ratios[which].append(
                float(thin.output_error(w, b @ a, g) / thin.output_error(w, second @ first, g))
            )
metric("whitened_vs_svd.output_error_ratio", max(ratios["seen"]))
metric("whitened_vs_svd.unseen_ratio", max(ratios["unseen"]))
metric("whitened_vs_svd.median_ratio", sorted(ratios["unseen"])[len(ratios["unseen"]) // 2])

# %% tags=["nbval-check-output"]
verdict(
    "on the images that were asked, whitening is never worse, in no layer and at no rank",
    max(ratios["seen"]) <= 1,
)

# %% [markdown]
# At its worst {{ whitened_vs_svd.output_error_ratio | number }} on the images that were asked,
# {{ whitened_vs_svd.unseen_ratio | number }} on others; in the middle {{ whitened_vs_svd.median_ratio | number }} of
# the plain one's: that is what a look at `1,000` images buys. Now the perceptron: whitened, ranks spread as you did,
# then trained on for twelve passes (`compresslab train 04_low_rank`; here we measure what is stored).

# %%
# About 10 seconds.
wide = cl.measure(perceptron, data.test, name="perceptron", rounds=9)
svd_mlp = cl.measure(experiments.load_network("svd_mlp"), data.test, name="svd_mlp", rounds=9)
drop = cl.accuracy_drop(wide, svd_mlp)
metric("svd_mlp.drop", drop)
metric("svd_mlp.macs_ratio", wide.macs_per_sample / svd_mlp.macs_per_sample)
metric("svd_mlp.file_ratio", wide.storage_bytes / svd_mlp.storage_bytes)
metric("svd_mlp.speedup_batch1", cl.speedup(perceptron, svd_mlp.model, one))
points = {
    "perceptron, SVD": (
        wide.macs_per_sample / svd_mlp.macs_per_sample,
        cl.speedup(perceptron, svd_mlp.model, batch),
    )
}
metric("svd_mlp.speedup_batch64", points["perceptron, SVD"][1])
metric("svd_mlp_untrained.accuracy", results["networks/svd_mlp/0"]["thin_test_accuracy"])
metric("perceptron.accuracy", wide.accuracy)

# %% tags=["nbval-check-output"]
verdict("the thin perceptron loses at most 0.3 points", drop.value <= 0.003)
verdict("with at least four times fewer MACs", wide.macs_per_sample / svd_mlp.macs_per_sample >= 4)
print(f"perceptron: {wide.macs_per_sample:,} MACs; thin: {svd_mlp.macs_per_sample:,}")

# %% [markdown]
# {{ svd_mlp.macs_ratio | times }} fewer MACs, and a file {{ svd_mlp.file_ratio | times }} smaller. Before training it
# had {{ svd_mlp_untrained.accuracy | percent }} right on test, the whole one has {{ perceptron.accuracy | percent }};
# after it, it loses {{ svd_mlp.drop | points }} (from {{ svd_mlp.drop.low | points }} to
# {{ svd_mlp.drop.high | points }}; below 0 is a gain). Part of that may be the twelve more passes: at the end of this
# lab a thick one gets them too. It is {{ svd_mlp.speedup_batch1 | times }} as fast for one image (from
# {{ svd_mlp.speedup_batch1.low | times }} to {{ svd_mlp.speedup_batch1.high | times }}) and
# {{ svd_mlp.speedup_batch64 | times }} for `64` (from {{ svd_mlp.speedup_batch64.low | times }} to
# {{ svd_mlp.speedup_batch64.high | times }}). In these large linear layers low rank is at home.
#
# ## A convolution is a matrix in more than one way
#
# A kernel has four indices, (out, in, h, w), and a matrix two. Every way to share them out is another factorisation.
# With a row for each output, rank r means a `3 × 3` convolution to r channels and a `1 × 1` back ([Zhang et al.
# 2015](https://arxiv.org/abs/1505.06798)). Or let the rows be (in, h) and the columns (out, w) ([Jaderberg et al.
# 2014](https://arxiv.org/abs/1405.3866); by SVD [Tai et al. 2015](https://arxiv.org/abs/1511.06067)): a blur of `3 × 3`
# can be done as a blur down the columns and then one along the rows, with `6` multiplications instead of `9`. Few
# kernels come apart like this, but a sum of such pairs makes any kernel, and one SVD finds the best few. (A bonus.)


# %% exercise="spatial_split"
def spatial_split(kernel: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """The kernels of a column and a row convolution whose product is nearest to the kernel. About 6 lines.

        matrix[(i, y), (o, x)] = kernel[o, i, y, x]                       (in·kh, out·kw), matrix = U · diag(s) · Vᵀ
        vertical[r, i, y, 0]   = U[(i, y), r] · √s[r]                     for the rank largest s, the largest first
        horizontal[o, r, 0, x] = √s[r] · Vᵀ[r, (o, x)]

    (i, y) is the row i · kh + y and (o, x) the column o · kw + x. No other two of these shapes come nearer, in squared
    error, with

        kernel[o, i, y, x] ≈ sum over r of vertical[r, i, y, 0] · horizontal[o, r, 0, x]

    Args:
        kernel: (out, in, kh, kw), the weight of a convolution. Not changed.
        rank: how many channels lie between the two, from 1 to min(in·kh, out·kw).

    Returns:
        (vertical, horizontal): (rank, in, kh, 1) and (out, rank, 1, kw), in kernel's dtype. The sign of a pair does
        not matter.
    """
    ### BEGIN SOLUTION
    out, inputs, kh, kw = kernel.shape
    matrix = kernel.permute(1, 2, 0, 3).reshape(inputs * kh, out * kw)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    vertical = (u[:, :rank] * root).T.reshape(rank, inputs, kh, 1)
    horizontal = (root[:, None] * vh[:rank]).view(rank, out, 1, kw).transpose(0, 1)
    return vertical, horizontal
    ### END SOLUTION


# %%
by_rows = thin.space_kernels(bank, rank=48)
first, second = yours.truncated_svd(bank.flatten(1), rank=29)
print(f"channels: {first.numel() + second.numel():,} weights; space: {sum(k.numel() for k in by_rows):,}")
near = {"channels, rank 29": (second @ first).view_as(bank), "space, rank 48": thin.from_space(*by_rows)}
scenes.draw_filters(bank, near)

# %% [markdown]
# With as many weights, space comes nearer in this layer. Look at the single kernels: what does each way keep?
#
# Or leave the height and width as they are, and make *both* channel dimensions thinner. A convolution's outputs
# resemble each other, and so do its inputs, so a few mixtures of each may do. To find them, the kernel is unfolded
# along one dimension: that one counts the rows, all others together the columns, and nothing is computed. (A bonus.)


# %% exercise="unfold"
def unfold(tensor: Tensor, *, mode: int) -> Tensor:
    """The tensor as a matrix whose row i is all that has index i in the mode. About 1 line.

        for every index (i_0, …, i_last) of the tensor:
            row = i_mode
            column = the place of the other indices, in their old order, the last one running fastest

    For mode 1 of a tensor (2, 3, 4): matrix[j, 4 · i + k] = tensor[i, j, k], a matrix (3, 8).

    Args:
        tensor: of one dimension or more, in any order in memory. Not changed.
        mode: the dimension that becomes the rows, counted from 0.

    Returns:
        (size of the mode, product of the other sizes), in tensor's dtype; a vector becomes one column.
    """
    ### BEGIN SOLUTION
    return tensor.movedim(mode, 0).reshape(tensor.shape[mode], -1)
    ### END SOLUTION


# %% [markdown]
# Find the mixtures by one SVD for the outputs and one for the inputs, and ask what is left of the kernel between them:
# a small *core*. This is Tucker-2 ([Kim et al. 2016](https://arxiv.org/abs/1511.06530)).


# %% exercise="tucker2"
def tucker2(kernel: Tensor, *, ranks: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """A small core, and the leading directions of outputs and inputs, by two SVDs (HOSVD). About 4 lines.

        u_out = the first r_out left singular vectors, the largest first, of the kernel as a matrix (out, in·kh·kw)
        u_in  = the first r_in left singular vectors of the whole kernel as a matrix (in, out·kh·kw)
        core[a, b, y, x] = sum over o and i of u_out[o, a] · u_in[i, b] · kernel[o, i, y, x]

    A row of the first matrix is all that belongs to one output, a row of the second all that belongs to one input.
    Leading means of the largest singular values. The kernel is then nearly

        kernel[o, i, y, x] ≈ sum over a and b of u_out[o, a] · u_in[i, b] · core[a, b, y, x]

    Args:
        kernel: (out, in, kh, kw). Not changed.
        ranks: (r_out, r_in), the outputs' first; each at least 1 and at most what its matrix has singular values.

    Returns:
        (core, u_out, u_in): (r_out, r_in, kh, kw), (out, r_out) and (in, r_in) in kernel's dtype. The columns of both
        factors have length 1 and are orthogonal; their signs do not matter, as long as the core goes with them.
    """
    ### BEGIN SOLUTION
    u_out = torch.linalg.svd(kernel.flatten(1), full_matrices=False).U[:, : ranks[0]]
    u_in = torch.linalg.svd(kernel.transpose(0, 1).flatten(1), full_matrices=False).U[:, : ranks[1]]
    return torch.einsum("oa,ib,oiyx->abyx", u_out, u_in, kernel), u_out, u_in
    ### END SOLUTION


# %% [markdown]
# A core and two factors save nothing as long as they are multiplied back into a kernel. Applied one after the other
# they are three convolutions: a thin one in, a small k × k one in the middle, a thin one out.


# %% exercise="tucker_layer"
def tucker_layer(conv: nn.Conv2d, core: Tensor, u_out: Tensor, u_in: Tensor) -> nn.Sequential:
    """Three convolutions that do what conv would with the kernel rebuilt from core and factors. About 12 lines.

        rebuilt[o, i, y, x] = sum over a and b of u_out[o, a] · u_in[i, b] · core[a, b, y, x]

        first   1 × 1,    in → r_in       no bias
        middle  kh × kw,  r_in → r_out    no bias, with the stride, padding and dilation of conv
        last    1 × 1,    r_out → out     with conv's bias where it has one; where conv.bias is None, no bias

    The weight of an nn.Conv2d is (outputs, inputs, height, width). The 1 × 1 layers keep the picture's size.

    Args:
        conv: the layer to replace: groups=1, padding with zeros. Not changed; its own weight is not needed.
        core: (r_out, r_in, kh, kw), with kh and kw those of conv.
        u_out: (out, r_out).
        u_in: (in, r_in).

    Returns:
        nn.Sequential(first, middle, last) in core's dtype. Its bias is a copy: training it leaves conv as it is.
    """
    ### BEGIN SOLUTION
    (out, r_out), (inputs, r_in) = u_out.shape, u_in.shape
    how = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
    first = nn.Conv2d(inputs, r_in, 1, bias=False, dtype=core.dtype)
    middle = nn.Conv2d(r_in, r_out, conv.kernel_size, **how, bias=False, dtype=core.dtype)
    last = nn.Conv2d(r_out, out, 1, bias=conv.bias is not None, dtype=core.dtype)
    with torch.no_grad():
        first.weight.copy_(u_in.T[:, :, None, None])
        middle.weight.copy_(core)
        last.weight.copy_(u_out[:, :, None, None])
        if last.bias is not None:
            last.bias.copy_(conv.bias)
    return nn.Sequential(first, middle, last)
    ### END SOLUTION


# %%
# About 5 seconds.
name = "blocks.5.conv1"  # 64 → 112 channels, stride 2
conv = layers[name]
core, u_out, u_in = yours.tucker2(conv.weight.detach(), ranks=(56, 32))
three = yours.tucker_layer(conv, core, u_out, u_in)
rebuilt = thin.from_tucker(core, u_out, u_in)
x = torch.randn(2, conv.in_channels, 7, 7)
gap = (three(x) - nn.functional.conv2d(x, rebuilt, conv.bias, conv.stride, conv.padding)).abs().max()
network = copy.deepcopy(baseline)
network.set_submodule(name, three)
print(f"{conv.weight.numel():,} weights → {thin.count_weights(three):,}")
print(f"{cl.accuracy(baseline, few):.1%} right → {cl.accuracy(network, few):.1%}, without training")

# %%
scenes.draw_filters(conv.weight.detach(), {"ranks 56, 32": rebuilt.detach()})

# %% tags=["nbval-check-output"]
verdict("three thin layers do what the rebuilt kernel does, to 1e-5", bool(gap < 1e-5))

# %% [markdown]
# Two SVDs are each the best for their own side, with the other left whole; together they are good, but not the best.
# Taking turns brings them nearer, though nobody promises the best: the outputs' mixtures anew from the kernel as the
# inputs' mixtures leave it, then the inputs' (*HOOI*; no turn makes it worse). How much is it worth, and how does ours
# compare with tensorly's?

# %%
w = layers["blocks.6.conv2"].weight.detach()
for sweeps in (0, 1, 2, 5):
    near = thin.from_tucker(*thin.tucker2(w, ranks=(56, 56), sweeps=sweeps))
    print(f"{sweeps} sweeps: error {float((near - w).norm() / w.norm()):.4f}")
against = experiments.load_against_tensorly()
metric("tucker_vs_tensorly.error_difference", against["error_difference"])
metric("tucker_vs_tensorly.seconds_ratio", cl.Interval(**against["seconds_ratio"]))

# %% [markdown]
# The first sweep does nearly all that sweeps can do. On the same kernels with the same sweeps, tensorly's error differs
# from ours by {{ tucker_vs_tensorly.error_difference | number }} of itself at most, and ours takes
# {{ tucker_vs_tensorly.seconds_ratio | number }} of its time (from {{ tucker_vs_tensorly.seconds_ratio.low | number }}
# to {{ tucker_vs_tensorly.seconds_ratio.high | number }}; measured once, `python -m tests.benchmarks.tucker` repeats
# it).
#
# ### Down to lines: CP
#
# Tucker leaves a small kernel in the middle. CP leaves none ([Lebedev et al. 2014](https://arxiv.org/abs/1412.6553)):
# the whole kernel becomes a sum of components, and each of them is as plain as can be: so much from each input, at each
# row, at each column, to each output. (A bonus.)


# %% exercise="cp_kernel"
def cp_kernel(outputs: Tensor, inputs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The convolution's kernel that four CP factors stand for. About 1 line.

        kernel[o, i, y, x] = Σ_r outputs[o, r] · inputs[i, r] · rows[y, r] · columns[x, r]

    Column r of all four factors makes component r; the components are added up. With one component (r = 1) the sum has
    one term.

    Args:
        outputs: (out, r), floats.
        inputs: (in, r).
        rows: (kh, r).
        columns: (kw, r). None of the four is changed; all have the same dtype.

    Returns:
        kernel (out, in, kh, kw), as nn.Conv2d has it.
    """
    ### BEGIN SOLUTION
    return torch.einsum("or,ir,yr,xr->oiyx", outputs, inputs, rows, columns)
    ### END SOLUTION


# %% [markdown]
# As layers: `1 × 1` in, then a column and a row on each channel alone (*depthwise*), `1 × 1` out. Or keep height and
# width together: then each channel has a small `3 × 3` of its own in the middle. No formula gives the best factors all
# at once. But hold all of them still except one, and finding that one is plain linear regression; so one takes turns
# (the paper fits all at once, by another method), and each turn can only bring the tensor nearer. (A bonus.)


# %% exercise="cp_step"
def cp_step(tensor: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The factor a that comes nearest to the tensor while b and c stand still. About 3 lines.

    It makes the squared error Σ_ijl (tensor[i, j, l] - Σ_r a[i, r] · b[j, r] · c[l, r])² as small as can be, exactly:

        products[j · k + l, r] = b[j, r] · c[l, r]                          (n · k, r), in the order of tensor.flatten(1)
        gram                   = productsᵀ · products = (bᵀ b) * (cᵀ c)     (r, r), the two multiplied entry by entry
        a                      = tensor.flatten(1) · products · gram⁻¹      (m, n · k) · (n · k, r) · (r, r)

    Nothing is scaled or normalised. A tensor of zeros gives zeros.

    Args:
        tensor: (m, n, k), floats; not changed.
        b: (n, r), the factor of the second mode.
        c: (k, r), the factor of the third. No column of products is a mixture of the others, so gram can be inverted.

    Returns:
        a (m, r), the factor of the first mode, in the dtype of tensor.
    """
    ### BEGIN SOLUTION
    products = (b[:, None] * c).flatten(0, 1)  # (n · k, r)
    gram = (b.T @ b) * (c.T @ c)  # (r, r)
    return tensor.flatten(1) @ products @ torch.linalg.inv(gram)
    ### END SOLUTION


# %% [markdown]
# A matrix has a nearest matrix of every rank. A tensor may have none: components can grow without end and cancel each
# other, coming nearer and nearer ([de Silva and Lim 2008](https://arxiv.org/abs/math/0607647)). Large numbers that
# cancel lose their digits when rounded, and can make training unstable. The remedy is a small price on large
# components, a *ridge* (after [Phan et al. 2020](https://arxiv.org/abs/2008.05441), who keep them small in another
# way). The picture's measure is 1 for components at right angles, and grows as they cancel.

# %%
# About 10 seconds.
w = layers["blocks.3.conv2"].weight.detach().flatten(2)  # (64, 64, 9)
turns = (5, 20, 50, 100, 200)
paths = {}
for way, ridge in (("no ridge", 0.0), ("a ridge of 0.01", 0.01)):
    found = [thin.cp(w, rank=48, sweeps=n, ridge=ridge) for n in turns]
    paths[way] = [thin.cancellation(factors) for factors in found]
    error = float((thin.from_cp(found[-1]) - w).norm() / w.norm())
    metric(f"cp_{'ridge' if ridge else 'free'}.error", error)
    metric(f"cp_{'ridge' if ridge else 'free'}.cancellation", paths[way][-1])
curves.draw_cancellation(paths, sweeps=turns)

# %% [markdown]
# Without a ridge the components are {{ cp_free.cancellation | number }} times as large as what they add up to, and
# growing; with it {{ cp_ridge.cancellation | number }} times. The error after as many sweeps is about the same:
# {{ cp_free.error | percent }} and {{ cp_ridge.error | percent }}. (All at the same rank, height and width together.)
#
# Five ways to take the same layer apart, each with a third of its weights. How near do they come?

# %%
conv, noise = (
    layers["blocks.3.conv2"],
    torch.randn(64, 64, 7, 7),
)  # white noise: the outputs' error is nearly the kernel's
for name, split in thin.SPLITS.items():
    rank = thin.rank_for_weights(conv, share=1 / 3, split=split)
    parts = thin.thin_layers(split, "blocks.3.conv2", conv, rank)
    error = float(((parts(noise) - conv(noise)).norm() / conv(noise).norm()).detach())
    metric(f"third_{name}.error", error)
    print(f"{name}: rank {rank}, {thin.count_weights(parts):,} weights, error {error:.1%}")

# %% [markdown]
# Channels {{ third_channels.error | percent }}, space {{ third_space.error | percent }}, Tucker
# {{ third_tucker.error | percent }}, CP {{ third_cp.error | percent }} ({{ third_depthwise.error | percent }} with
# height and width together). What CP makes can't be split further: a depthwise layer has one input for each output, and
# nothing that its outputs could share.

# %% tags=["nbval-check-output"]
parts = thin.thin_layers(thin.CP, "blocks.3.conv2", conv, 64)
thin.factorization_table(parts, {"0": 16, "1": 1, "2": 1, "3": 16})

# %% [markdown]
# ## What training mends
#
# A factorised network is a new network, and a good place to begin training. At each budget of MACs, layers were made
# thin where the scan says that it hurts least. Tucker's plan for half and for a quarter of the MACs, by the rank of the
# outputs:

# %%
found = {label: results[f"tuned/tucker/{b}/0"]["ranks"] for label, b in (("half", "2"), ("a quarter", "4"))}
plans = {label: {name: pair[0] for name, pair in ranks.items()} for label, ranks in found.items()}
scenes.draw_rank_plan(plans, full={name: layer.out_channels for name, layer in inner.items()})

# %% [markdown]
# Then all of them were trained for one pass over {{ tuned.images | count }} images (three seeds; each way has its own
# learning rate, chosen by validation). Before, and after:

# %%
ways = {"whitened": "SVD, channels", "space": "SVD, space", "tucker": "Tucker", "cp": "CP"}
budgets = ("1.5", "2", "3", "4")
whole = cl.measure(baseline, data.test, name="baseline", rounds=9)
before, after = {}, {}
for way, label in ways.items():
    ratios = [whole.macs_per_sample / results[f"tuned/{way}/{b}/0"]["macs_per_sample"] for b in budgets]
    for curve, key in ((before, "thin_accuracy"), (after, "test_accuracy")):
        runs = [experiments.values(results, "tuned", way, b, key=key) for b in budgets]
        curve[label] = [(ratio, cl.mean_over_seeds(run)) for ratio, run in zip(ratios, runs)]
metric("tuned.images", results["tuned/tucker/2/0"]["images"])
curves.draw_accuracy_by_macs(before, after, baseline=whole.accuracy)

# %%
at_two = {way: experiments.values(results, "tuned", way, "2") for way in (*ways, "channels", "random")}
raw = {way: experiments.values(results, "tuned", way, "2", key="thin_accuracy") for way in at_two}
for way in at_two:
    metric(f"{way}_2.accuracy", cl.mean_over_seeds(at_two[way]))
    metric(f"{way}_2.thin_accuracy", cl.mean_over_seeds(raw[way]))
for way in ways:
    metric(f"{way}_4.accuracy", cl.mean_over_seeds(experiments.values(results, "tuned", way, "4")))
    ranks, split = results[f"tuned/{way}/4/0"]["ranks"], thin.SPLITS.get(way, thin.CHANNELS)
    thinned = thin.thin_like(baseline, experiments.as_ranks(ranks), split=split)
    metric(f"{way}_4.weights", thin.count_weights(thinned))
metric("tucker_vs_random.gain", cl.gain_over_seeds(at_two["tucker"], at_two["random"]))
metric("whitened_vs_channels.gain", cl.gain_over_seeds(raw["whitened"], raw["channels"]))
metric("whitened_vs_channels_trained.gain", cl.gain_over_seeds(at_two["whitened"], at_two["channels"]))

# %% [markdown]
# At half of the MACs, before training: channels, whitened, {{ whitened_2.thin_accuracy | percent }} right (with the
# same ranks, but the nearest weights, {{ channels_2.thin_accuracy | percent }}), space
# {{ space_2.thin_accuracy | percent }}, Tucker {{ tucker_2.thin_accuracy | percent }}, CP
# {{ cp_2.thin_accuracy | percent }}. After one short pass: {{ whitened_2.accuracy | percent }},
# {{ space_2.accuracy | percent }}, {{ tucker_2.accuracy | percent }}, {{ cp_2.accuracy | percent }}; at a quarter of
# the MACs {{ whitened_4.accuracy | percent }}, {{ space_4.accuracy | percent }}, {{ tucker_4.accuracy | percent }},
# {{ cp_4.accuracy | percent }}. And a control: Tucker between directions drawn at *random*, at the same ranks and at
# the rate that suits them best, begins at {{ random_2.thin_accuracy | percent }} and ends at
# {{ random_2.accuracy | percent }}. What the decomposition finds is worth {{ tucker_vs_random.gain | points }} (from
# {{ tucker_vs_random.gain.low | points }} to {{ tucker_vs_random.gain.high | points }}).
#
# Live, a little: your Tucker layers, in the place of every `3 × 3` convolution, for two passes over a few images.

# %%
# About 20 seconds.
wanted = thin.ranks_for_weights(baseline, share=0.4, split=thin.TUCKER, multiple=8)
fresh = copy.deepcopy(baseline)
for name, conv in inner.items():
    parts = yours.tucker2(conv.weight.detach(), ranks=wanted[name])
    fresh.set_submodule(name, yours.tucker_layer(conv, *parts))
settings = {"learning_rate": 0.0125, "precision": cl.fast_precision()}
short = cl.fit(fresh, data.train.first(6000), few.first(1000), epochs=2, **settings).model
begun, reached = cl.accuracy(fresh, few), cl.accuracy(short, few)
print(f"Tucker, 40% of every such layer's weights: {begun:.1%} right without training")
print(f"after two passes over 6,000 images: {reached:.1%}")
assert reached > begun

# %% [markdown]
# Longer runs are stored, `24` passes each, and measured again here: Tucker and space at half of the MACs, CP at a
# quarter.

# %%
# About 30 seconds.
named = ("tucker", "space", "cp")
measured = {
    name: cl.measure(experiments.load_network(name), data.test, name=name, rounds=9) for name in named
}
drops = {name: cl.accuracy_drop(whole, found) for name, found in measured.items()}
for name, found in measured.items():
    metric(f"{name}.drop", drops[name])
    metric(f"{name}.macs_ratio", whole.macs_per_sample / found.macs_per_sample)
    metric(f"{name}.file_ratio", whole.storage_bytes / found.storage_bytes)

# %% tags=["nbval-check-output"]
stored = {name: experiments.values(results, "networks", name)[0] for name in named}
again = all(abs(measured[name].accuracy - stored[name]) < 0.002 for name in named)
verdict("measured again, every network is as accurate as when it was stored", again)
verdict("Tucker loses at most half a point", drops["tucker"].value <= 0.005)
verdict("with at least twice fewer MACs", whole.macs_per_sample / measured["tucker"].macs_per_sample >= 2)
for name, found in measured.items():
    print(f"{name}: {found.macs_per_sample:,} MACs, {found.storage_bytes:,} bytes")

# %% [markdown]
# Tucker: {{ tucker.drop | points }} lost (from {{ tucker.drop.low | points }} to {{ tucker.drop.high | points }}) at
# {{ tucker.macs_ratio | times }} fewer MACs, the file {{ tucker.file_ratio | times }} smaller. Space:
# {{ space.drop | points }} (from {{ space.drop.low | points }} to {{ space.drop.high | points }}) at
# {{ space.macs_ratio | times }}, file {{ space.file_ratio | times }}. CP: {{ cp.drop | points }} (from
# {{ cp.drop.low | points }} to {{ cp.drop.high | points }}) at {{ cp.macs_ratio | times }}, file
# {{ cp.file_ratio | times }}. All three had `24` passes more than the baseline they are held against. (Kim et al.
# report AlexNet, at `2.67` times fewer MACs, with `1.7` points of top-5 accuracy lost.)
#
# ## Fewer MACs, less time?
#
# Now your second bet. First one layer, taken apart by CP to `8.6` times fewer multiplications, for `64` images in
# PyTorch, on one thread. (Lebedev et al. measured `8.5` times the speed of a whole network, on another network and
# another processor.)

# %%
conv = layers["blocks.6.conv2"]  # 112 → 112 channels, 4 × 4 pixels; stride 1, so MACs go as weights
pixels = torch.randn(64, 112, 4, 4)
for name, split in (("CP", thin.CP), ("CP, 3 × 3 in one", thin.DEPTHWISE)):
    parts = thin.thin_layers(split, "blocks.6.conv2", conv, 57)
    points[f"one layer, {name}"] = (
        conv.weight.numel() / thin.count_weights(parts),
        cl.speedup(conv, parts, pixels),
    )
metric("cp_layer.macs_ratio", points["one layer, CP"][0])
metric("cp_layer.speedup_batch64", points["one layer, CP"][1])
draw_guesses(guess, dict(zip(guess, (perceptron[3].weight.numel() / half, points["one layer, CP"][1]))))

# %% [markdown]
# (Your first bet stands beside it.) And the networks, in PyTorch and in an engine that folds BatchNorm away:

# %%
# About 40 seconds.
folder = Path(tempfile.mkdtemp())
for name, network in {
    "baseline": baseline,
    **{name: found.model for name, found in measured.items()},
}.items():
    deploy.write_onnx(fold_batch_norm(network), folder / f"{name}.onnx")
engine = deploy.load_deployed(folder / "baseline.onnx")
for name, found in measured.items():
    ratio = whole.macs_per_sample / found.macs_per_sample
    points[f"network, {ways[name]}"] = (ratio, cl.speedup(baseline, found.model, batch, rounds=15))
    metric(f"{name}.speedup_batch1", cl.speedup(baseline, found.model, one, rounds=15))
    metric(f"{name}.speedup_batch64", points[f"network, {ways[name]}"][1])
    in_engine = cl.speedup(engine, deploy.load_deployed(folder / f"{name}.onnx"), batch, rounds=15)
    metric(f"{name}.speedup_batch64_onnx", in_engine)

# %%
curves.draw_speedups(points)

# %% [markdown]
# The dashed line is what the MACs promise. One layer by CP, {{ cp_layer.macs_ratio | times }} fewer MACs:
# {{ cp_layer.speedup_batch64 | times }} as fast (from {{ cp_layer.speedup_batch64.low | times }} to
# {{ cp_layer.speedup_batch64.high | times }}). The networks, for one image and for `64`, in PyTorch and in ONNX
# Runtime:
#
# | network | MACs | PyTorch, 1 | PyTorch, 64 | ONNX Runtime, 64 |
# |---|---|---|---|---|
# | Tucker | {{ tucker.macs_ratio | times }} fewer | {{ tucker.speedup_batch1 | times }} | {{ tucker.speedup_batch64 | times }} ({{ tucker.speedup_batch64.low | times }} to {{ tucker.speedup_batch64.high | times }}) | {{ tucker.speedup_batch64_onnx | times }} |
# | space | {{ space.macs_ratio | times }} fewer | {{ space.speedup_batch1 | times }} | {{ space.speedup_batch64 | times }} ({{ space.speedup_batch64.low | times }} to {{ space.speedup_batch64.high | times }}) | {{ space.speedup_batch64_onnx | times }} |
# | CP | {{ cp.macs_ratio | times }} fewer | {{ cp.speedup_batch1 | times }} | {{ cp.speedup_batch64 | times }} ({{ cp.speedup_batch64.low | times }} to {{ cp.speedup_batch64.high | times }}) | {{ cp.speedup_batch64_onnx | times }} |
# | perceptron, SVD | {{ svd_mlp.macs_ratio | times }} fewer | {{ svd_mlp.speedup_batch1 | times }} | {{ svd_mlp.speedup_batch64 | times }} ({{ svd_mlp.speedup_batch64.low | times }} to {{ svd_mlp.speedup_batch64.high | times }}) | |
#
# With a quarter of the MACs CP takes *longer* than the whole network in PyTorch, and far less time in the other engine:
# what a depthwise layer costs is a matter of how somebody wrote its kernel. But in none of them does the time fall as
# the MACs do, for any of the convolutional networks. MACs and time were both measured right; so where does the rest of
# the time go? Here is that one layer, whole and in CP's four, for one image:

# %%
chain = thin.thin_layers(thin.CP, "blocks.6.conv2", conv, 57)
for part in (nn.Sequential(conv), chain):
    for cost in cl.layer_costs(part, pixels, rounds=51):
        written = cost.output_bytes // 4
        print(f"{cost.macs:9,} MACs, {written:,} numbers written, {1000 * cost.latency_ms:.0f} µs")
    print()

# %% [markdown]
# Compare the MACs of the middle two of the four with their time.


# %% exercise="why_fewer_macs_are_not_less_time"
def why_fewer_macs_are_not_less_time() -> str:
    """The letter of the right answer: "a", "b", "c", "d", "e" or "f"."""
    ### BEGIN SOLUTION
    return "c"
    ### END SOLUTION


# %% [markdown]
# ## Thin from the start, and thin updates
#
# If a layer may be thin in the end, why not from the beginning? On the perceptron, three seeds: *fine-tuned* is trained
# thick for twelve passes, factorised, and trained for twelve more; *from the start* is the same thin network, its first
# weights the factorised first weights of the thick one ([Khodak et al. 2021](https://arxiv.org/abs/2105.01029)), for
# twelve passes or for all twenty-four.

# %%
runs = ("dense", "dense_longer", "fine_tuned", "from_the_start", "from_the_start_longer")
begin = {name: experiments.values(results, "beginning", key=name) for name in runs}
for name, reached in begin.items():
    metric(f"{name}.accuracy", cl.mean_over_seeds(reached))
gains = {name: cl.gain_over_seeds(begin[name], begin["dense_longer"]) for name in runs[2:]}
for name, gain in gains.items():
    metric(f"{name}.gain", gain)
metric("fine_tuned_vs_thin.gain", cl.gain_over_seeds(begin["fine_tuned"], begin["from_the_start_longer"]))
gains = dict(zip(("fine-tuned", "from the start, 12 passes", "from the start, 24 passes"), gains.values()))
gains_as.draw_gains(gains, label="gain in test accuracy, points", against="the thick one, 24 passes")

# %% [markdown]
# The thick perceptron reaches {{ dense.accuracy | percent }} in twelve passes and {{ dense_longer.accuracy | percent }}
# in twenty-four. Against the latter: made thin and trained on {{ fine_tuned.gain | points }} (from
# {{ fine_tuned.gain.low | points }} to {{ fine_tuned.gain.high | points }}), thin from the start
# {{ from_the_start.gain | points }} (from {{ from_the_start.gain.low | points }} to
# {{ from_the_start.gain.high | points }}) in half as many passes and {{ from_the_start_longer.gain | points }} in as
# many (from {{ from_the_start_longer.gain.low | points }} to {{ from_the_start_longer.gain.high | points }}). With all
# passes counted, thick first and thin from the start differ by {{ fine_tuned_vs_thin.gain | points }} (from
# {{ fine_tuned_vs_thin.gain.low | points }} to {{ fine_tuned_vs_thin.gain.high | points }}): three seeds can't tell.
# (One learning rate for all. The thick one of twenty-four passes and the fine-tuned one ran in two halves, each with
# its own warm-up, and the ranks of all thin ones were read off a trained network.)
#
# A cousin leaves the network as it is, and makes only what it *learns anew* thin: beside a frozen weight W, train a
# pair B A of low rank, zero at first, and add it to W at the end. That is LoRA ([Hu et al.
# 2021](https://arxiv.org/abs/2106.09685)); the network runs as if nothing had been there. (A bonus.)


# %% exercise="merge_update"
def merge_update(weight: Tensor, a: Tensor, b: Tensor, *, alpha: float) -> Tensor:
    """One weight that does what the weight and its low-rank update do together. About 1 line.

        for every input x:   merged · x = weight · x + alpha / r · b · (a · x)

    The given weight stays as it is: the merged one is a new tensor.

    Args:
        weight: (out, in), floats; not changed.
        a: (r, in), the update's first layer.
        b: (out, r), its second; r is the rank of the update.
        alpha: how strongly the update counts; any number, 0 switches it off.

    Returns:
        merged (out, in), in the dtype of weight.
    """
    ### BEGIN SOLUTION
    return weight + alpha / a.shape[0] * (b @ a)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
layer = perceptron[3]
beside = thin.add_updates(nn.Sequential(layer), rank=4, generator=torch.Generator().manual_seed(0))
beside[0].b.data.normal_()  # as if it had learnt
merged, x = thin.merge_updates(beside), torch.rand(5, 1024)
merge_gap = (beside(x) - merged(x)).abs().max() / beside(x).abs().max()
verdict("merged, the layer says the same, to 1e-5", bool(merge_gap < 1e-5))

# %% [markdown]
# What is such an update worth? A new task for the perceptron: clothes turned by `90°`, of which it sees
# {{ turned.images | count }} pictures. Let all of it learn, its last layer only, or updates of rank 1, 4 and 16.

# %%
turned = {
    name: experiments.values(results, "adapting", name)
    for name in ("all", "head", "update_1", "update_4", "update_16")
}
metric("turned.images", results["adapting/all/0"]["images"])
metric("turned_before.accuracy", results["adapting/all/0"]["before"])
for name, reached in turned.items():
    metric(f"turned_{name}.accuracy", cl.mean_over_seeds(reached))
    metric(f"turned_{name}.trained", results[f"adapting/{name}/0"]["trained"])
    print(
        f"{name}: {results[f'adapting/{name}/0']['trained']:,} numbers trained, {cl.mean_over_seeds(reached)} right"
    )

# %% [markdown]
# | what learns | numbers | right on turned clothes |
# |---|---|---|
# | nothing | 0 | {{ turned_before.accuracy | percent }} |
# | the last layer | {{ turned_head.trained | count }} | {{ turned_head.accuracy | percent }} |
# | updates of rank 1 | {{ turned_update_1.trained | count }} | {{ turned_update_1.accuracy | percent }} |
# | updates of rank 4 | {{ turned_update_4.trained | count }} | {{ turned_update_4.accuracy | percent }} |
# | updates of rank 16 | {{ turned_update_16.trained | count }} | {{ turned_update_16.accuracy | percent }} |
# | all of it | {{ turned_all.trained | count }} | {{ turned_all.accuracy | percent }} |
#
# (The last layer has ten outputs: an update of rank 16 has rank 10 there. Each way has its own learning rate.) An
# update makes small what is *trained*, stored and sent; each step still runs the whole network, and the network is as
# large as before.
#
# ## What pays

# %%
report = cl.compare(whole, *measured.values())
report

# %%
report.draw()

# %% [markdown]
# One thick layer can always be written as thin ones; whether that pays depends on the rank, on the layer, and on what you
# pay for. Wide linear layers: gladly. Convolutions of a network that is narrow already: for the file and the MACs yes, for
# the clock less than the MACs say, or not at all, and how much is up to the engine. Low rank under fewer bits and zeros is a later lab.
#
# ## What we claimed, what we measured
#
# | claim | what we measured | verdict |
# |---|---|---|
# | "Low rank finds the redundant parameters." | a perceptron with {{ svd_mlp.macs_ratio | times }} fewer MACs, before any training: {{ svd_mlp_untrained.accuracy | percent }} (whole: {{ perceptron.accuracy | percent }}); Tucker's directions against random ones {{ tucker_vs_random.gain | points }} | holds; energy alone does not show it ({{ perceptron_trained.rank_share | percent }} of the perceptron's ranks hold `90%`, by chance {{ perceptron_random.rank_share | percent }}) |
# | "Half of the rank, half of the parameters." | a square layer: {{ half_rank.weights_ratio | times }} fewer | does not hold: r (m + n) is not m · n / 2 |
# | "The nearest weight makes the nearest layer." | whitened over plain, squared error of the outputs on unseen images: {{ whitened_vs_svd.median_ratio | number }} in the middle; at half of the MACs and the same ranks, before training, {{ whitened_vs_channels.gain | points }} | does not hold: the inputs have a say; a short training makes up for most of it ({{ whitened_vs_channels_trained.gain | points }} left) |
# | "A factorised network needs no training." | at half of the MACs: space {{ space_2.thin_accuracy | percent }}, Tucker {{ tucker_2.thin_accuracy | percent }}, channels {{ channels_2.thin_accuracy | percent }}; after one short pass {{ space_2.accuracy | percent }}, {{ tucker_2.accuracy | percent }}, {{ channels_2.accuracy | percent }} | holds for the perceptron; the convolutions need it, the more the thinner they are |
# | "Low rank halves the MACs of a convolutional network at little loss." | Tucker {{ tucker.drop | points }} at {{ tucker.macs_ratio | times }}, space {{ space.drop | points }} at {{ space.macs_ratio | times }} | holds within half a point, after `24` more passes |
# | "CP compresses most." | at a quarter of the MACs, after one short pass: CP {{ cp_4.accuracy | percent }} with {{ cp_4.weights | count }} weights, Tucker {{ tucker_4.accuracy | percent }} with {{ tucker_4.weights | count }}, space {{ space_4.accuracy | percent }} with {{ space_4.weights | count }}; trained longer, CP loses {{ cp.drop | points }} | holds for MACs: it keeps most of the answers there; in weights the others are near, or below; for time, see the next row |
# | "Fewer MACs, less time." | PyTorch and ONNX Runtime: Tucker, {{ tucker.macs_ratio | times }} fewer, {{ tucker.speedup_batch64 | times }} and {{ tucker.speedup_batch64_onnx | times }} as fast; CP, {{ cp.macs_ratio | times }} fewer, {{ cp.speedup_batch64 | times }} and {{ cp.speedup_batch64_onnx | times }}; a perceptron by SVD, {{ svd_mlp.macs_ratio | times }} fewer, in PyTorch {{ svd_mlp.speedup_batch64 | times }} for `64` images, {{ svd_mlp.speedup_batch1 | times }} for one | nearly holds for large linear layers and large batches; convolutions stay short of it, CP is slower in one engine and fastest in the other |
# | "One can begin thin." | against the thick one, with as many passes: {{ from_the_start_longer.gain | points }}; thick first, then thin: {{ fine_tuned.gain | points }} | nearly holds: counted in all passes, no difference that three seeds could tell |
# | "LoRA learns as much with a fraction of the numbers." | rank 16, {{ turned_update_16.trained | count }} of {{ turned_all.trained | count }} numbers: {{ turned_update_16.accuracy | percent }} right, all of them: {{ turned_all.accuracy | percent }}, the last layer alone: {{ turned_head.accuracy | percent }} | does not hold at these ranks, for a task as new as this: nearer to the last layer alone than to all of it |
#
# ## Have it marked
#
# {{ check }}
