# %% [markdown]
# # What does a model cost?
#
# A compressed network promises to be smaller and faster. Smaller than what, measured how? Before we change a
# single weight we learn to read the bill: parameters, bytes, multiplications, memory, time. You compute each
# of these yourself, and then hold your number against a measurement.
#
# At the end you bet on what the oldest trick of the field, setting weights to zero, does to a file and to a
# clock. Most people lose that bet.
#
# {{ lab }}

# %%
import itertools
import math
import time

import numpy as np
import torch
from torch import Tensor, nn

import compresslab as cl
from compresslab.course.figures.guesses import draw_guesses
from compresslab.course.measuring import figures as pictures
from compresslab.notebook import lab, metric, verdict
from compresslab.techniques.pruning import prune_by_magnitude

# %%
check, hint, reveal, yours = lab("00_measuring")
data = cl.fashion_mnist()
baseline = cl.load_baseline("baseline")
image = data.test.first(1).inputs()  # (1, 1, 28, 28)

# %% [markdown]
# `check` marks what you write, `hint` helps in three steps, `reveal` hands you a working function for no
# points, and `yours` holds the functions that you got right: the cells between the exercises use them.
#
# ## The network on the bench
#
# [Fashion-MNIST](https://arxiv.org/abs/1708.07747) is ten kinds of clothing on small grey images. The
# baseline, which every lab of this course compresses, is a residual network with seven blocks.

# %%
pictures.draw_classes(data.train)

# %%
# About 10 seconds: 10,000 test images, then a clock.
measured = cl.measure(baseline, data.test, name="baseline")
metric("baseline.accuracy", measured.accuracy)

# %% tags=["nbval-check-output"]
promised = cl.read_card("baseline")["test_accuracy"]
verdict("as accurate as its card says, but for ten images", abs(measured.accuracy - promised) <= 0.001)

# %% [markdown]
# It gets {{ baseline.accuracy | percent }} of the test images right. What does that cost?
#
# ## Parameters
#
# The number that everybody quotes first: how many numbers the network has learned. A layer that is used in
# two places is learned once, so it counts once. BatchNorm's running averages are kept, but nobody learned
# them.


# %% exercise="count_parameters"
def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns: Σ over its parameters of their size. About 1 line.

    Args:
        model: any network; its layers may be nested, shared or frozen.
    """
    ### BEGIN SOLUTION
    return sum(parameter.numel() for parameter in model.parameters())
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(f"{yours.count_parameters(baseline):,} parameters")

# %% [markdown]
# ## Bytes
#
# A parameter is a number, a file is made of bytes, and how many bytes a number takes is up to us. One thing
# more: a file also keeps what nobody learned. Without BatchNorm's running averages the network would not
# work.


# %% exercise="model_bytes"
def model_bytes(model: nn.Module, *, bits: int) -> int:
    """How many bytes the model's tensors take in a file that stores each float with ``bits`` bits. About 5 lines.

    In the file are all parameters and all buffers, a shared tensor once. A floating-point tensor takes ``bits`` bits
    a number, whatever its type is now; an integer tensor (BatchNorm's step counter) keeps the size that it has. Each
    tensor begins at a byte of its own, so it is rounded up to whole bytes:

        bytes = Σ over tensors of ⌈numel · width / 8⌉     width = bits, or 8 · element_size() for integers

    Args:
        model: any network; it is not changed.
        bits: of one floating-point number: 32, 16, 8 or 4.

    Returns:
        A whole number of bytes. 3 numbers of 4 bits are 12 bits, so 2 bytes.
    """
    ### BEGIN SOLUTION
    total = 0
    for tensor in [*model.parameters(), *model.buffers()]:
        width = bits if tensor.is_floating_point() else 8 * tensor.element_size()
        total += (tensor.numel() * width + 7) // 8
    return total
    ### END SOLUTION


# %% [markdown]
# The only honest size is that of a file on the disk. Is yours the same?

# %% tags=["nbval-check-output"]
predicted, written = yours.model_bytes(baseline, bits=32), cl.storage_bytes(baseline)
print(f"predicted {predicted:,} bytes, written {written:,}: {written - predicted:,} more")

# %%
metric("baseline.storage_bytes", written)
metric("baseline.names_bytes", written - predicted)
metric("baseline.names_share", (written - predicted) / written)

# %% [markdown]
# The file takes {{ baseline.storage_bytes | bytes }}. What you did not predict,
# {{ baseline.names_bytes | bytes }} or {{ baseline.names_share | percent }}, is the table of names and shapes
# at its head. And with fewer bits a number?

# %% tags=["nbval-check-output"]
for bits in (32, 16, 8, 4):
    print(f"{bits:2} bits a number: {yours.model_bytes(baseline, bits=bits):>9,} bytes")

# %% [markdown]
# ## Multiplications
#
# Work is counted in multiply-accumulates, MACs: a weight times an input, added to a sum. (FLOPs are sometimes
# the same and sometimes twice as many: ask which.) A convolution has one output number for each place where
# its kernel stops and each output channel, and each of these numbers costs one whole kernel.


# %% exercise="conv_macs"
def conv_macs(
    input_shape: tuple[int, int, int],
    weight_shape: tuple[int, int, int, int],
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
) -> int:
    """How many MACs a Conv2d does for one image: how often the last line of this loop runs. About 5 lines.

        for o in range(out):
            for i in range(0, height + 2 * padding[0] - kernel_height + 1, stride[0]):
                for j in range(0, width + 2 * padding[1] - kernel_width + 1, stride[1]):
                    for each of the channels / groups input channels that o sees:
                        for each of the kernel_height · kernel_width weights:
                            y[o, i, j] += weight * pixel     # one MAC, also where the pixel is padding

    Args:
        input_shape: (channels, height, width) of one image, before padding.
        weight_shape: (out, channels / groups, kernel_height, kernel_width).
        stride: (vertical, horizontal), in pixels.
        padding: (vertical, horizontal), in pixels, on each of the two sides.
        groups: into how many separate parts the channels are split.

    No loop is needed: a side of the output has ⌊(side + 2 · padding - kernel) / stride⌋ + 1 places.
    """
    ### BEGIN SOLUTION
    _, height, width = input_shape
    out, in_per_group, kernel_height, kernel_width = weight_shape
    out_height = (height + 2 * padding[0] - kernel_height) // stride[0] + 1
    out_width = (width + 2 * padding[1] - kernel_width) // stride[1] + 1
    return out * out_height * out_width * in_per_group * kernel_height * kernel_width
    ### END SOLUTION


# %% [markdown]
# Turn one knob at a time. Which changes the work and not the weights? Which changes both, but not equally?

# %%
pictures.draw_convolution_cost(channels=32, stride=2)

# %%
pictures.explore_convolution()

# %% [markdown]
# A network is the sum of its layers, but their shapes are known only while it runs. So let it run once, and
# listen: a *forward hook* is a function that PyTorch calls after a layer has run, with the layer, its inputs
# and its output.


# %% exercise="network_macs"
def network_macs(model: nn.Module, image: Tensor) -> int:
    """How many MACs the model's Conv2d and Linear layers do for one image. About 10 lines.

    Every call of such a layer, however deep inside the model it sits, costs

        MACs = (output numbers of one image) · (weights that feed one output number)
             = output[0].numel() · layer.weight[0].numel()

    and a layer that is called twice costs twice. Nothing else counts: no bias, no BatchNorm, no pooling.
    ``layer.register_forward_hook(f)`` has ``f(layer, inputs, output)`` called after every run of the layer, until
    ``remove()`` is called on what it returned.

    Args:
        model: any network, in training or evaluation mode; left as it came, its mode too, and without hooks.
        image: (batch, channels, height, width); the batch may hold several images.
    """
    ### BEGIN SOLUTION
    macs = []

    def count(layer, inputs, output):
        macs.append(output[0].numel() * layer.weight[0].numel())

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return sum(macs)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(f"you count {yours.network_macs(baseline, image):,} MACs an image")
print(f"PyTorch's own counter, halved: {cl.count_macs(baseline, image):,}")

# %%
metric("baseline.macs", cl.count_macs(baseline, image))

# %% [markdown]
# ## Memory while it runs
#
# Weights lie still; activations come and go. While a layer runs, its input and its output are both alive, and
# the moment it is done the input may go. What a chain of layers needs is decided in its worst moment.


# %% exercise="peak_activation_bytes"
def peak_activation_bytes(shapes: list[tuple[int, ...]], *, bytes_per_number: int = 4) -> int:
    """The most bytes that the activations of a chain of layers need at any moment. About 3 lines.

        peak = max over i of bytes(shapes[i]) + bytes(shapes[i + 1])
        bytes(shape) = product of its sizes · bytes_per_number

    Args:
        shapes: of the network's input, then of the output of each layer, such as [(1, 28, 28), (16, 28, 28)] for
            one layer. With no layer at all (one shape) the peak is the input.
        bytes_per_number: 4 for float32, 2 for float16, 1 for int8.
    """
    ### BEGIN SOLUTION
    sizes = [math.prod(shape) * bytes_per_number for shape in shapes]
    return max((before + after for before, after in itertools.pairwise(sizes)), default=sizes[0])
    ### END SOLUTION


# %% tags=["nbval-check-output"]
chain = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(16, 32, 3, padding=1))
shapes = [(1, 28, 28), (16, 28, 28), (16, 14, 14), (32, 14, 14)]
print(f"a chain: you say {yours.peak_activation_bytes(shapes):,} bytes")
print(f"measured: {cl.peak_activation_bytes(chain, image):,} bytes")

# %%
metric("baseline.peak_activation_bytes", measured.peak_activation_bytes)
metric("baseline.parameters_bytes", 4 * measured.parameters)

# %% [markdown]
# The baseline is no chain: a shortcut keeps a block's input alive until the block has ended. Its peak is
# {{ baseline.peak_activation_bytes | bytes }} for one image, beside {{ baseline.parameters_bytes | bytes }}
# of weights; but the weights are there once, and activations come with every image of a batch.
#
# ## Where it all sits
#
# Four bills, and they are not paid by the same layers.

# %%
costs = cl.layer_costs(baseline, image)
cl.layer_table(costs)

# %%
cl.draw_layers(costs)


# %%
def share(layers, cost):
    return sum(getattr(layer, cost) for layer in layers) / sum(getattr(layer, cost) for layer in costs)


last_blocks = [layer for layer in costs if layer.name.startswith(("blocks.5", "blocks.6"))]
small_layers = [layer for layer in costs if layer.kind in ("BatchNorm2d", "ReLU")]
for cost in ("parameters", "macs", "latency_ms"):
    metric(f"last_blocks.{cost}_share", share(last_blocks, cost))
metric("small_layers.latency_ms_share", share(small_layers, "latency_ms"))

# %% [markdown]
# The last two blocks hold {{ last_blocks.parameters_share | percent }} of the parameters, do
# {{ last_blocks.macs_share | percent }} of the multiplications and take
# {{ last_blocks.latency_ms_share | percent }} of the time. BatchNorm and ReLU, which count as no work at all,
# take {{ small_layers.latency_ms_share | percent }} of it: they move data. Who wants a smaller file and who
# wants a faster network must look at different layers.
#
# ## An honest clock
#
# Time is the one cost that does not hold still. The first call is slow, some other program wakes up, the
# processor warms and slows down. A fair race warms up first, lets the two run *in turns*, so that what
# disturbs one disturbs the other, takes one ratio from each pair, and of those the median.


# %% exercise="paired_speedup"
def paired_speedup(baseline, candidate, clock, *, pairs: int, warmup: int) -> float:
    """How many times faster the candidate is than the baseline, measured fairly. About 10 lines.

        warmup times:   baseline(), candidate()        not timed
        pairs times:    a_i = seconds of baseline(),   b_i = seconds of candidate(), one right after the other
        speed-up      = median(a_0 / b_0, a_1 / b_1, …)

    Args:
        baseline: a function without arguments.
        candidate: another one.
        clock: a function that returns the seconds since some fixed moment; read it just before and just after
            each measured call.
        pairs: how many pairs to measure.
        warmup: how often each function runs before that; may be 0.

    For an even number of pairs the median is the mean of the two middle ratios (np.median).
    """
    ### BEGIN SOLUTION
    for _ in range(warmup):
        baseline()
        candidate()
    ratios = []
    for _ in range(pairs):
        start = clock()
        baseline()
        middle = clock()
        candidate()
        ratios.append((middle - start) / (clock() - middle))
    return float(np.median(ratios))
    ### END SOLUTION


# %% [markdown]
# Try it on a race whose result we know: the network against itself. The truth is `1`.


# %%
# About 5 seconds.
def run():
    with torch.no_grad():
        baseline(image)


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


one_call = [seconds(run) / seconds(run) for _ in range(20)]
in_turns = [yours.paired_speedup(run, run, time.perf_counter, pairs=15, warmup=2) for _ in range(20)]
pictures.draw_ratios({"one call each": one_call, "in turns, median of 15": in_turns})

# %% [markdown]
# A single ratio is not the truth, so a ratio without an interval says nothing. The bootstrap asks what other
# runs might have shown: draw from the measured ratios with replacement, take the median of the draw, and
# repeat. Where the interval of these medians covers `1`, the honest sentence is "no measurable difference".


# %% exercise="read_interval"
def read_interval(ratios: Tensor, resamples: Tensor) -> tuple[float, float, str]:
    """The 95 % interval of the median speed-up, and what it says: (low, high, verdict). About 7 lines.

        medians[b] = median(ratios[resamples[b, 0]], …, ratios[resamples[b, n - 1]])     for each row b
        low, high  = the 0.025 and the 0.975 quantile of medians
        verdict    = "faster" if low > 1, "slower" if high < 1, else "no measurable difference"

    Args:
        ratios: (n,) float, baseline seconds / candidate seconds of each pair.
        resamples: (B, n) int64, indices into ratios: each row is an experiment that might have happened.

    The median of an even number of values is the mean of the two middle ones: ``values.quantile(0.5, dim=…)``.
    (``torch.median`` takes the lower one.)
    """
    ### BEGIN SOLUTION
    medians = ratios[resamples].quantile(0.5, dim=1)  # (B, n) -> (B,)
    low, high = medians.quantile(0.025).item(), medians.quantile(0.975).item()
    if low > 1:
        return low, high, "faster"
    if high < 1:
        return low, high, "slower"
    return low, high, "no measurable difference"
    ### END SOLUTION


# %%
draws = torch.randint(20, (1000, 20), generator=torch.Generator().manual_seed(0))
for name, ratios in (("one call each", one_call), ("in turns", in_turns)):
    low, high, verdict = yours.read_interval(torch.tensor(ratios), draws)
    print(f"{name}: [{low:.3f}, {high:.3f}] {verdict}")

# %% [markdown]
# ## The bet
#
# In every layer we set the nine smallest of ten weights to zero. This is pruning by magnitude ([Han et al.
# 2015](https://arxiv.org/abs/1506.02626)), and a network like ours survives it with some training. How many
# times smaller will the file be? How many times faster will the network run? Replace the two guesses by yours
# *before* you run the next cell: no guess, no surprise.

# %%
guess = {"file: times smaller": 10.0, "network: times faster": 10.0}  # the answer one hears most often

# %%
# About 15 seconds.
zeros = cl.measure(prune_by_magnitude(baseline, sparsity=0.9), data.test, name="nine zeros in ten")
report = cl.compare(measured, zeros)
report

# %%
row = report.rows[1]
draw_guesses(guess, dict(zip(guess, (row.file_ratio, row.speedup), strict=True)))

# %%
metric("zeros.file_ratio", row.file_ratio)
metric("zeros.speedup", row.speedup)
metric("zeros.drop", row.drop)

# %% tags=["nbval-check-output"]
print(f"bytes: {measured.storage_bytes:,} before, {zeros.storage_bytes:,} after")
print(f"MACs: {measured.macs_per_sample:,} before, {zeros.macs_per_sample:,} after")

# %% [markdown]
# The file is {{ zeros.file_ratio | times }} smaller. The network is {{ zeros.speedup | times }} faster, with
# the interval from {{ zeros.speedup.low | times }} to {{ zeros.speedup.high | times }}. What we did lose,
# until it is trained again, is {{ zeros.drop | points }} of accuracy.


# %% exercise="why_zeros_cost"
def why_zeros_cost() -> str:
    """The letter of the right answer: "a", "b", "c", "d" or "e". 1 line."""
    ### BEGIN SOLUTION
    return "d"
    ### END SOLUTION


# %% [markdown]
# ## What we claimed, what we measured
#
# | claim | what we measured | verdict |
# |---|---|---|
# | "The parameters tell the size of the file." | all but {{ baseline.names_share | percent }} of the bytes are tensors | holds, once you know the bits a number takes and count the buffers |
# | "The time is spent where the parameters are." | {{ last_blocks.parameters_share | percent }} of the parameters, {{ last_blocks.latency_ms_share | percent }} of the time | does not |
# | "Only multiplications cost time." | BatchNorm and ReLU take {{ small_layers.latency_ms_share | percent }} | does not |
# | "Zeros make the file smaller." | {{ zeros.file_ratio | times }} | does not: holds only in a format that leaves them out |
# | "Zeros make the network faster." | {{ zeros.speedup | times }} | does not: holds only if whole channels are really removed |
#
# Everything in the later labs is held against these measurements: `measure`, then `compare`, and no ratio
# without its interval.
#
# ## Have it marked
#
# {{ check }}
