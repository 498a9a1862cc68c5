# %% [markdown]
# # Fewer bits
#
# A trained network keeps each weight in 32 bits. Most of them say nothing. This lab takes them away: eight bits and
# integer arithmetic that really runs faster, then four, then two, until the network begins to forget, and then the
# means to make it remember.
#
# {{ lab }}

# %%
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor, nn

import compresslab as cl
from compresslab import deployment as deploy
from compresslab.course.figures.guesses import draw_guesses
from compresslab.course.quantization import figures as grids
from compresslab.experiments import quantization as experiments
from compresslab.notebook import lab, metric, verdict
from compresslab.techniques import quantization as q

# %%
check, hint, reveal, yours = lab("01_quantization")
data = cl.fashion_mnist()
baseline = cl.load_baseline("baseline")
weight = baseline.blocks[5].conv1.weight.detach()  # (112, 64, 3, 3), the layer that we look at
folder = Path(mkdtemp())  # for the files that we write

# %% [markdown]
# Before anything else, bet. In a quarter of the bits a network should be four times smaller. And how many times faster?
# Put in your numbers; they are shown beside the truth further down.

# %%
guess = {
    "int8 file: times smaller": 4.0,
    "int8 network: times faster": 4.0,
}  # the answer one hears most often

# %% [markdown]
# ## What a few bits can say
#
# A 16-bit float is a 32-bit float with fewer digits: `float16` keeps more digits, `bfloat16` more range. An integer has
# neither: its values stand at equal distances, and somebody must say where. (PyTorch's own `torch.qint8` tensors, which
# carried that with them, are being retired; `torchao` stores plain integers beside their scales, and so do we.) Here is
# one layer on the grid of four bits:

# %%
grids.draw_grid(weight, bits=4)

# %%
# About 15 seconds: the 10,000 test images, three times.
formats = {
    "float32": baseline,
    "float16": q.store_as(baseline, dtype=torch.float16),
    "bfloat16": q.store_as(baseline, dtype=torch.bfloat16),
}
right = {name: cl.right_answers(model, data.test) for name, model in formats.items()}

# %% tags=["nbval-check-output"]
for name, model in formats.items():
    print(f"{name:8}  {cl.storage_bytes(model):9,} bytes")

# %%
for name in ("float16", "bfloat16"):
    metric(f"{name}.drop", cl.paired_drop(right["float32"], right[name]))
    metric(f"{name}.file_ratio", cl.storage_bytes(baseline) / cl.storage_bytes(formats[name]))

# %% [markdown]
# Half the bits are free: {{ float16.file_ratio | times }} smaller, {{ float16.drop | points }} of accuracy lost. From
# here on we leave floats.
#
# ## A grid of integers
#
# An affine grid ([Jacob et al. 2018](https://arxiv.org/abs/1712.05877)) has a step, the *scale*, and the integer that
# means zero, the *zero point*: $x \approx s\,(q - z)$. Zero must be exact, because padding and ReLU make so many of
# them.


# %% exercise="scale_and_zero_point"
def scale_and_zero_point(low: float, high: float, *, bits: int) -> tuple[float, int]:
    """The width of a step and the integer of 0.0, for numbers between low and high on an unsigned grid. About 6 lines.

    The grid has the integers 0 … 2^bits - 1, evenly spaced: 0 stands for the low end, 2^bits - 1 for the high end.
    Zero must be exact, since padding is zero and so is all that a ReLU cuts off: the range is widened, where it has
    to be, until 0 is inside, and 0.0 is given a whole number.

        low, high  = min(low, 0), max(high, 0)
        scale      = (high - low) / (2^bits - 1)            1 where low = high = 0
        zero_point = -low / scale, rounded to the nearest integer and clamped to 0 … 2^bits - 1

    Args:
        low: the smallest number that the grid should reach.
        high: the largest, at least low; both may lie on one side of zero.
        bits: of one integer, 2 to 8.

    Returns:
        (scale, zero_point), a float and an int. From -1 to 4 with 8 bits: (0.0196…, 51).
    """
    ### BEGIN SOLUTION
    levels = 2**bits - 1
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 1.0, 0
    scale = (high - low) / levels
    return scale, min(max(round(-low / scale), 0), levels)
    ### END SOLUTION


# %% [markdown]
# Rounding to the grid is one line, and the order in that line is where people lose a day: what lies outside must be
# clamped *before* it is squeezed into eight bits.


# %% exercise="quantize"
def quantize(x: Tensor, scale: float, zero_point: int, *, bits: int) -> Tensor:
    """The integer nearest to each x, on the grid of scale and zero point. About 2 lines.

        q = clamp(round(x / scale) + zero_point, 0, 2^bits - 1)

    What lies beyond the range becomes its end. The cast to uint8 comes last, after the clamp: uint8 wraps round,
    so 256 would become 0.

    Args:
        x: floats of any shape; not changed.
        scale: the width of a step.
        zero_point: the integer of 0.0.
        bits: 2 to 8; below 8, too, each integer is kept in a uint8.

    Returns:
        q, uint8, in the shape of x. Exactly between two integers either will do.
    """
    ### BEGIN SOLUTION
    q = (x / scale).round() + zero_point
    return q.clamp(0, 2**bits - 1).to(torch.uint8)
    ### END SOLUTION


# %% [markdown]
# Now turn the knobs. Which of them lowers the error most? What does a scale for each channel buy?

# %%
grids.draw_grid(weight, bits=4, per_channel=True)

# %%
grids.explore_grid(weight)

# %% [markdown]
# ## One scale is not enough
#
# The channels of a layer do not use the same range. Whoever gives all of them the grid of the widest, spends most of
# the grid of the others on nothing.

# %%
grids.draw_channels(weight)


# %% exercise="channel_scales"
def channel_scales(weight: Tensor, *, bits: int) -> tuple[Tensor, Tensor]:
    """The weight as signed integers, with one scale for each output channel. About 5 lines.

        for c in range(out):
            scales[c] = max |weight[c]| / (2^(bits-1) - 1)      1 where the channel is all zeros
            q[c] = round(weight[c] / scales[c])

    The zero point is 0, so 0.0 is the integer 0. The integers go from -(2^(bits-1) - 1) to 2^(bits-1) - 1, 8 bits from
    -127 to 127: the lowest one of int8 is left out, and the largest magnitude of a channel lands on the last integer.

    Args:
        weight: (out, in) of a Linear, or (out, in, kernel_height, kernel_width) of a Conv2d; not changed.
        bits: 2 to 8; below 8, too, each integer is kept in an int8.

    Returns:
        (q, scales): q, int8, in the shape of weight; scales, floats, (out,).
    """
    ### BEGIN SOLUTION
    rows = weight.flatten(1)  # (out, …) -> (out, weights of a channel)
    scales = rows.abs().amax(dim=1) / (2 ** (bits - 1) - 1)  # (out,)
    scales = torch.where(scales == 0, 1.0, scales)
    q = (rows / scales[:, None]).round().to(torch.int8)
    return q.view(weight.shape), scales
    ### END SOLUTION


# %% [markdown]
# ## Where to cut
#
# A range has two prices. A wide one makes the steps coarse; a narrow one cuts off what lies beyond. The fewer the bits,
# the more it pays to cut.

# %%
grids.draw_clipping(weight.flatten(), bits=4)


# %% exercise="least_squares_range"
def least_squares_range(samples: Tensor, *, bits: int, candidates: Tensor) -> float:
    """The candidate t whose grid from -t to t moves the samples least, in mean squared error. About 9 lines.

    For each candidate t, with highest = 2^(bits-1) - 1 and scale = t / highest:

        q     = clamp(round(samples / scale), -highest, highest)
        error = mean over all samples of (scale · q - samples)²

    Rounding is in this error, and so is what the clamp cuts off.

    Args:
        samples: values that a tensor took, any shape; not changed.
        bits: of one integer, 2 to 8.
        candidates: (n,), the ranges to try, all above 0, in any order.

    Returns:
        The best candidate; where several are equally good, any of them.
    """
    ### BEGIN SOLUTION
    highest = 2 ** (bits - 1) - 1
    best, least = 0.0, float("inf")
    for t in candidates.tolist():
        scale = t / highest
        q = (samples / scale).round().clamp(-highest, highest)
        error = (scale * q - samples).square().mean().item()
        if error < least:
            best, least = t, error
    return best
    ### END SOLUTION


# %% [markdown]
# Squares are one way to say what is lost. Information is another: keep the range whose histogram, once quantized, is
# hardest to tell from the true one.


# %% exercise="entropy_range"
def entropy_range(counts: Tensor, *, levels: int) -> int:
    """How many bins of a histogram to keep, so that its quantized version loses least information. About 13 lines.

    Try every cut = levels, 2 · levels, 3 · levels, … up to all bins (a rest that fills no such step is never kept):

        P = counts[:cut], and its last bin also has all that lies beyond: + sum(counts[cut:])
        Q = counts[:cut] without what lies beyond, quantized: split into ``levels`` groups of cut / levels neighbouring
            bins; in each group the sum is shared out evenly among the bins that are not empty in counts; empty ones stay 0
        p = P / sum(P),  q = Q / sum(Q)
        KL(p, q) = Σ over the bins with p > 0 of p · log(p / q)         infinite where such a bin has q = 0

    Args:
        counts: (bins,), floats: how many magnitudes |x| fell into each bin, from zero upwards; counts[0] > 0.
            Not changed.
        levels: how many groups the kept bins are merged into, at most bins.

    Returns:
        The cut with the least KL(p, q), a number of bins; where several are equally good, any of them.
    """
    ### BEGIN SOLUTION
    best, least = 0, float("inf")
    for cut in range(levels, len(counts) + 1, levels):
        inside = counts[:cut].view(levels, -1)  # a row a level
        filled = inside > 0
        share = inside.sum(dim=1, keepdim=True) / filled.sum(dim=1, keepdim=True).clamp(min=1)
        q = (share * filled).flatten()
        p = counts[:cut].clone()
        p[-1] += counts[cut:].sum()
        p, q = p / p.sum(), q / q.sum()
        divergence = torch.where(p > 0, p * (p / q).log(), 0.0).sum().item()
        if divergence < least:
            best, least = cut, divergence
    return best
    ### END SOLUTION


# %% [markdown]
# ## Nothing but integers
#
# A grid for the weights makes the file smaller. Time is saved only when the *inputs* are integers too, because then the
# sum is one of bytes. What is left of the floats is a single factor for each channel.


# %% exercise="integer_linear"
def integer_linear(
    q_x: Tensor, zero_point_x: int, q_w: Tensor, bias: Tensor, multiplier: Tensor, zero_point_y: int
) -> Tensor:
    """The output (n, out) of a linear layer as uint8, computed on integers until the last step. About 4 lines.

        accumulator[i, o] = Σ_k (q_x[i, k] - zero_point_x) · q_w[o, k] + bias[o]          integers of 32 bits
        q_y[i, o]         = clamp(round(multiplier[o] · accumulator[i, o]) + zero_point_y, 0, 255)

    One step of the accumulator is worth s_x · s_w[o], one step of q_y is worth s_y; the multiplier turns the first
    into the second: s_x · s_w[o] / s_y.

    Args:
        q_x: inputs (n, in), uint8; x = s_x · (q_x - zero_point_x).
        zero_point_x: 0 … 255, the byte that stands for x = 0.
        q_w: weights (out, in), int8; w = s_w[o] · q_w, so their zero point is 0.
        bias: (out,), int32, in steps of s_x · s_w[o].
        multiplier: (out,), float32.
        zero_point_y: 0 … 255, the byte that stands for y = 0.

    Bytes are for storing: 255 · 127 fits neither uint8 nor int8. What leaves 0 … 255 becomes its nearer end.
    """
    ### BEGIN SOLUTION
    x = q_x.to(torch.int32) - zero_point_x
    accumulator = x @ q_w.to(torch.int32).T + bias  # (n, out)
    q_y = torch.round(accumulator * multiplier) + zero_point_y
    return q_y.clamp(0, 255).to(torch.uint8)
    ### END SOLUTION


# %% [markdown]
# With BatchNorm folded into the convolutions (a bonus below), ranges taken from images, and biases in 32 bits, the
# whole network is such sums. First we simulate it, then we hand the same numbers to an engine that really multiplies
# bytes.

# %%
# About 20 seconds.
int8 = q.quantize_static(baseline, data.train.first(500).inputs(), reduce_range=not deploy.has_vnni())
deploy.write_onnx(q.fold_batch_norm(baseline), folder / "float32.onnx")
deploy.write_onnx(int8, folder / "int8.onnx")
engine = {name: deploy.load_deployed(folder / f"{name}.onnx") for name in ("float32", "int8")}
right["int8"] = cl.right_answers(engine["int8"], data.test)

# %%
batch = data.test.first(64).inputs()
same_engine = cl.speedup(engine["float32"], engine["int8"], batch)
against_torch = cl.speedup(baseline, engine["int8"], batch)
file_ratio = cl.storage_bytes(baseline) / engine["int8"].storage_bytes
metric("int8_static.drop", cl.paired_drop(right["float32"], right["int8"]))
metric("int8_static.file_ratio", file_ratio)
metric("int8_static.speedup_batch64_same_engine", same_engine)
metric("int8_static.speedup_batch64_torch", against_torch)

# %% tags=["nbval-check-output"]
verdict("accuracy lost ≤ 0.002", cl.paired_drop(right["float32"], right["int8"]).value <= 0.002)
verdict("file at least 3.5 times smaller", file_ratio >= 3.5)

# %%
draw_guesses(guess, dict(zip(guess, (file_ratio, same_engine), strict=True)))

# %% [markdown]
# The file is {{ int8_static.file_ratio | times }} smaller, and the network
# {{ int8_static.speedup_batch64_same_engine | times }} faster than the same engine's floats (from
# {{ int8_static.speedup_batch64_same_engine.low | times }} to
# {{ int8_static.speedup_batch64_same_engine.high | times }}), {{ int8_static.speedup_batch64_torch | times }} faster
# than PyTorch's. Accuracy lost: {{ int8_static.drop | points }} (from {{ int8_static.drop.low | points }} to
# {{ int8_static.drop.high | points }}). The gain in time belongs to the processor: it comes from an instruction that
# multiplies bytes (VNNI). Where that is missing, expect less, and measure.
#
# Integers are the same everywhere. So what we compute with integers here, step by step as you did for one layer, should
# be what the engine computes:

# %%
images = data.validation.first(200).inputs()
ours = q.run_in_integers(int8, images, to_grid=q.in_float32)
differ = (ours != engine["int8"](images)).float().mean().item()
metric("int8_static.outputs_that_differ", differ)

# %% tags=["nbval-check-output"]
verdict("at most one output in two hundred differs", differ <= 0.005)


# %% exercise="fold_batch_norm"
def fold_batch_norm(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """The weight and bias of the one Conv2d that does what a Conv2d and its BatchNorm2d did. About 4 lines.

        z = conv(x, weight) + bias                                             for each output channel
        y = gamma · (z - mean) / sqrt(variance + eps) + beta                   BatchNorm in evaluation
        y = conv(x, new weight) + new bias                                     what you return

    Args:
        weight: (out, in, height, width). Not changed.
        bias: (out,) or None, which counts as 0.
        mean: (out,), the running mean.
        variance: (out,), the running variance.
        gamma: (out,), BatchNorm's weight.
        beta: (out,), BatchNorm's bias.
        eps: keeps the root away from 0.

    Returns:
        The new weight (out, in, height, width) and the new bias (out,).
    """
    ### BEGIN SOLUTION
    factor = gamma / torch.sqrt(variance + eps)  # (out,)
    bias = torch.zeros_like(mean) if bias is None else bias
    folded_bias = (bias - mean) * factor + beta
    return weight * factor.view(-1, 1, 1, 1), folded_bias
    ### END SOLUTION


# %% [markdown]
# ## The easy win?
#
# *Dynamic* quantization needs no images beforehand: weights become integers ahead of time, and each layer looks at its
# input when it arrives. Is that good for our convolutions? For a wide multilayer perceptron? Bet again.

# %%
dynamic_guess = {"convolutions: times faster": 2.0, "wide perceptron: times faster": 2.0}

# %%
# About 20 seconds.
deploy.write_onnx(cl.load_baseline("mlp"), folder / "mlp.onnx")
dynamic = {}
for name, source in (("cnn", "float32.onnx"), ("mlp", "mlp.onnx")):
    deploy.quantize_dynamic_onnx(folder / source, folder / f"{name}_dynamic.onnx")
    floats = deploy.load_deployed(folder / source)
    integers = deploy.load_deployed(folder / f"{name}_dynamic.onnx")
    dynamic[name] = cl.speedup(floats, integers, batch)
    print(name, integers.node_kinds())
draw_guesses(dynamic_guess, dict(zip(dynamic_guess, dynamic.values(), strict=True)))

# %%
metric("int8_dynamic_cnn.speedup_batch64", dynamic["cnn"])
metric("int8_dynamic_mlp.speedup_batch64", dynamic["mlp"])

# %% [markdown]
# Convolutions: {{ int8_dynamic_cnn.speedup_batch64 | times }}. The perceptron:
# {{ int8_dynamic_mlp.speedup_batch64 | times }}. The list of kernels above says more than it seems to.


# %% exercise="why_dynamic_is_slow"
def why_dynamic_is_slow() -> str:
    """The letter of the right answer: "a", "b", "c", "d" or "e"."""
    ### BEGIN SOLUTION
    return "c"
    ### END SOLUTION


# %% [markdown]
# ## Four bits: two in a byte
#
# No kernel here multiplies four-bit numbers, so from now on it is the file that shrinks. Two integers share a byte, and
# the sign is easily lost on the way back.


# %% exercise="unpack_int4"
def unpack_int4(packed: Tensor, *, count: int) -> Tensor:
    """The first ``count`` signed integers of four bits, two of which lie in each byte. About 3 lines.

        for j in range(len(packed)):
            integer 2 j     = the lowest  four bits of packed[j]      (the low nibble comes first)
            integer 2 j + 1 = the highest four bits of packed[j]

    Four bits b3 b2 b1 b0 in two's complement are worth -8 b3 + 4 b2 + 2 b1 + b0: from -8 to 7, and 1111 is -1.

    Args:
        packed: (⌈count / 2⌉,) uint8. Not changed.
        count: how many integers; if it is odd, the last high nibble only fills the byte up.

    Returns:
        (count,) int8. The byte 0xE1 = 1110 0001 holds 1 and then -2.
    """
    ### BEGIN SOLUTION
    low, high = packed & 0b1111, packed >> 4
    nibbles = torch.stack([low, high], dim=1).flatten()[:count].to(torch.int8)
    return torch.where(nibbles < 8, nibbles, nibbles - 16)
    ### END SOLUTION


# %%
# About 5 seconds.
w4 = q.quantize_weights(baseline, bits=4)
right["w4_nearest"] = cl.right_answers(w4, data.test)
metric("w4_nearest.drop", cl.paired_drop(right["float32"], right["w4_nearest"]))
metric("w4.file_ratio", cl.storage_bytes(baseline) / cl.storage_bytes(w4))

# %% tags=["nbval-check-output"]
print(f"{cl.storage_bytes(w4):,} bytes")
verdict("at least 7 times smaller", cl.storage_bytes(baseline) / cl.storage_bytes(w4) >= 7)

# %% [markdown]
# {{ w4.file_ratio | times }} smaller, for {{ w4_nearest.drop | points }}. Which layer is to blame? Its own
# rounding error does not tell:

# %%
layers = {n: m.weight.detach() for n, m in baseline.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
errors = {n: grids.grid_error(w, bits=4, per_channel=True)[0] / w.std().item() for n, w in layers.items()}
grids.draw_errors(errors, label="rounding error at 4 bits, as a share of the weights' standard deviation")

# %% [markdown]
# What counts is how far the *answers* move. Quantize one layer at a time, and compare the probabilities before and
# after.

# %%
# About 15 seconds.
few = data.validation.first(500)
answers = q.sensitivity(baseline, few.inputs(), choices=(2, 3, 4))
grids.draw_sensitivity({name: dict(zip((2, 3, 4), moved, strict=True)) for name, moved in answers.items()})

# %% [markdown]
# The layers do not suffer alike. So give more bits to those that do, and pay for them with those that do not. (A bonus:
# spread a budget of bytes yourself.)


# %% exercise="allocate_bits"
def allocate_bits(errors: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """Which choice of bits each layer gets, so that all fit the budget: a greedy rule. About 15 lines.

        start with choice 0, the cheapest, in every layer
        repeat:   an upgrade takes one layer i from its choice c to c + 1; it is on offer if
                      its price, sizes[i, c + 1] - sizes[i, c], is not more than the bytes that are left, and
                      its gain, errors[i, c] - errors[i, c + 1], is above 0
                  take the one with the largest gain / price; if none is on offer, stop

    Args:
        errors: (layers, choices), the error with only this layer at this choice.
        sizes: (layers, choices) int64, the layer's bytes at this choice; they rise from choice to choice.
        budget: bytes for all layers together; enough for choice 0 everywhere.

    Returns:
        (layers,) int64: the index of each layer's choice. No two gain / price are equal in the check.
    """
    ### BEGIN SOLUTION
    prices = sizes.diff(dim=1)  # (layers, choices - 1)
    rates = -errors.diff(dim=1) / prices
    chosen = torch.zeros(len(errors), dtype=torch.int64)
    left = budget - int(sizes[:, 0].sum())
    while True:
        best, rate = -1, 0.0
        for layer, now in enumerate(chosen.tolist()):
            fits = now < prices.shape[1] and prices[layer, now] <= left
            if fits and rates[layer, now] > rate:
                best, rate = layer, float(rates[layer, now])
        if best < 0:
            return chosen
        left -= int(prices[best, chosen[best]])
        chosen[best] += 1
    ### END SOLUTION


# %% [markdown]
# The other remedy keeps four bits for all. To round each weight to its *nearest* neighbour is best for the weight and
# not for the layer: up here can make up for down there. AdaRound ([Nagel et al.
# 2020](https://arxiv.org/abs/2004.10568)) and GPTQ ([Frantar et al. 2022](https://arxiv.org/abs/2210.17323)) look at
# some images, without labels, and choose together. These and the trained networks below come from `compresslab train
# 01_quantization`; here their files are read and measured again.

# %%
# About 25 seconds.
names = ("w4_rounded", "mixed", "w2_rounded", "w2_aware", "codebook_4bit", "codebook_2bit")
stored = {name: experiments.load_experiment(name) for name in names}
for name, model in stored.items():
    right[name] = cl.right_answers(model, data.test)
    metric(f"{name}.drop", cl.paired_drop(right["float32"], right[name]))
    metric(f"{name}.file_ratio", cl.storage_bytes(baseline) / cl.storage_bytes(model))

# %% tags=["nbval-check-output"]
lost = {name: cl.paired_drop(right["float32"], right[name]).value for name in right}
verdict("four bits, rounded with the data: lost ≤ 0.005", lost["w4_rounded"] <= 0.005)
verdict("... and less than to the nearest", lost["w4_rounded"] < lost["w4_nearest"])
verdict("mixed, in the same bytes: not more than to the nearest", lost["mixed"] <= lost["w4_nearest"])
verdict("two bits, trained: lost ≤ 0.015", lost["w2_aware"] <= 0.015)
verdict("a codebook of sixteen: lost ≤ 0.003", lost["codebook_4bit"] <= 0.003)
verdict("a codebook of four: lost ≤ 0.015", lost["codebook_2bit"] <= 0.015)

# %% [markdown]
# To the nearest: {{ w4_nearest.drop | points }} lost. With a look at the data: {{ w4_rounded.drop | points }}. With the
# bits spread by sensitivity, in the same bytes: {{ mixed.drop | points }}.
#
# ## Two bits: train with the rounding in place
#
# At two bits a weight is one of three values, and no rounding is good enough: with care for the data it still loses
# {{ w2_rounded.drop | points }}. *Quantization-aware training* rounds in every forward pass and lets the floats
# beneath move until the rounded ones do well. But a staircase has no slope. The way out is a lie that works: on the
# way back, take the staircase for a straight line.


# %% exercise="straight_through"
def straight_through(x: Tensor, scale: float, *, bits: int) -> Tensor:
    """x moved to the grid, with a gradient that ignores the rounding. About 5 lines.

        highest = 2^(bits-1) - 1
        forward:   y = scale · clamp(round(x / scale), -highest, highest)
        backward:  ∂y/∂x = 1   where -highest ≤ round(x / scale) ≤ highest,   else 0

    The true derivative of a staircase is 0 nearly everywhere, and nothing would learn. So the backward pass
    takes the rounding for a straight line, but not the clamping: what was cut off gets no gradient.

    Args:
        x: floats of any shape, with requires_grad. Not changed.
        scale: the width of a step.
        bits: of the grid, at least 2.

    Returns:
        y, in the shape and dtype of x. The same grid in both directions: 4 bits give -7 … 7.
    """
    ### BEGIN SOLUTION
    highest = 2 ** (bits - 1) - 1
    steps = torch.round(x / scale)
    y = steps.clamp(-highest, highest) * scale
    passing = torch.where(steps.abs() <= highest, x, 0.0)  # x where its gradient passes, nothing elsewhere
    return passing + (y - passing).detach()
    ### END SOLUTION


# %% [markdown]
# Here is a piece of that training, small and live: one epoch of the small network on 5,000 images.

# %%
# About 15 seconds.
small = cl.load_baseline("student")
start = q.prepare(small, bits=2)
trained = cl.fit(start, data.train.first(5000), few, epochs=1, learning_rate=0.02, seed=0)
before, after = (
    cl.accuracy(model, few) for model in (q.quantize_weights(small, bits=2), q.convert(trained.model))
)
print(f"two bits to the nearest: {before:.1%} right; after a little training: {after:.1%}")
assert after > before

# %% [markdown]
# The long run does this for the baseline: {{ w2_aware.file_ratio | times }} smaller, {{ w2_aware.drop | points }} lost.
# (After such training the weights are still floats; `convert` makes them integers at last.)
#
# ## A book of values
#
# Who says that the values must stand at equal distances? A codebook ([Han et al.
# 2015](https://arxiv.org/abs/1510.00149)) puts them where the weights are: cluster the weights, keep the centres, and
# store for each weight only which.


# %% exercise="codebook"
def codebook(weights: Tensor, start: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
    """Which shared value stands for each weight, and the shared values: k-means. About 7 lines.

        centroids = start
        steps times:   indices[i]   = the k with the smallest |weights[i] - centroids[k]|
                       centroids[k] = mean of the weights with indices[i] = k;  where there are none, it stays
        at the end:    indices[i], once more, for the final centroids

    Args:
        weights: (n,). Not changed.
        start: (k,), the first centroids, in any order. Not changed.
        steps: how many rounds, 0 or more.

    Returns:
        indices (n,) int64 and centroids (k,); centroid k is the one that began at start[k], so nothing is sorted.
        The weights are then replaced by centroids[indices].
    """
    ### BEGIN SOLUTION
    centroids = start.clone()
    for _ in range(steps):
        indices = (weights[:, None] - centroids).abs().argmin(dim=1)  # (n, k) -> (n,)
        for k in range(len(centroids)):
            if (indices == k).any():
                centroids[k] = weights[indices == k].mean()
    indices = (weights[:, None] - centroids).abs().argmin(dim=1)
    return indices, centroids
    ### END SOLUTION


# %% [markdown]
# The centres can be trained too: each gets the sum of the gradients of its weights, made smaller the more they are.
# After that, sixteen values cost {{ codebook_4bit.drop | points }}, and four values
# {{ codebook_2bit.drop | points }}.
#
# ## What we claimed, what we measured
#
# | claim | what we measured | verdict |
# |---|---|---|
# | "int8 is smaller and faster." | {{ int8_static.file_ratio | times }} smaller, {{ int8_static.speedup_batch64_same_engine | times }} faster, {{ int8_static.drop | points }} lost | holds, with ranges from images, scales for each channel and kernels for bytes |
# | "Fewer bits always cost accuracy." | 16 bits {{ float16.drop | points }}, 8 bits {{ int8_static.drop | points }}, 4 bits {{ w4_rounded.drop | points }} | holds only below eight bits, and there the method decides how much |
# | "QAT beats PTQ." | two bits: trained {{ w2_aware.drop | points }}, rounded with care {{ w2_rounded.drop | points }}; four bits, rounded with care {{ w4_rounded.drop | points }} | holds only where rounding is no longer enough |
# | "Dynamic is the easy win." | convolutions {{ int8_dynamic_cnn.speedup_batch64 | times }}, wide perceptron {{ int8_dynamic_mlp.speedup_batch64 | times }} | holds only where there is a fused kernel for it |
#
# ## Have it marked
#
# {{ check }}
