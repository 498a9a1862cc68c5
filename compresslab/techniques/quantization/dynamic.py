"""Dynamic quantization: the weights are integers ahead of time, each input becomes integers when it arrives.

A layer's weights are known, so their grid is computed once. Its input is not, so at every call the layer
looks for the smallest and the largest value of what came, and quantizes it to the grid between these two. No
calibration data, no wrong guess of a range, and no setting to choose.

    s_x, z_x from min x and max x,    y = s_x · s_w[c] · Σ (q_x - z_x) · q_w[c]  +  b

The sum runs over products of 8-bit integers and is exact in 32 bits. Here it is simulated in floats: the
layer gets s_x (q_x - z_x) and multiplies with s_w q_w. Both factors of every product come from the integers,
so the output differs from integer arithmetic by float rounding alone.

What it saves: three quarters of the file and, with an integer kernel, of the weights' traffic. What it costs:
before a layer can start, its input is read once for the range and once more to quantize it, and its 32-bit
sums go back to floats. Whether that pays is the engine's affair. ONNX Runtime has one fused kernel for all of
it in a *linear* layer: a wide multilayer perceptron is much faster there. For a **convolution** it has only
the general integer kernel, with separate passes behind it; that kernel alone takes longer than the float
convolution, and finding the ranges is the least of it (lab 01 measures both). For convolutional networks
measure the ranges beforehand: the static page.

The range is one for the whole input, so an image's result depends a little on the others in its batch.

Source: the range at run time is common practice without a paper of its own; ONNX has it as an operator,
``DynamicQuantizeLinear``. The arithmetic: Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from torch import Tensor, nn

from compresslab.techniques.quantization.affine import fake_quantize, scale_and_zero_point
from compresslab.techniques.quantization.weight_only import quantize_layer, replace_layers

__all__ = ["QuantizedInput", "quantize_dynamic"]


class QuantizedInput(nn.Module):
    """Moves each input to the nearest of the 256 numbers between its own smallest and largest value."""

    only_rounds = True  # so that a network traced into steps is without it

    def forward(self, x: Tensor) -> Tensor:
        scale, zero_point = scale_and_zero_point(x.amin(), x.amax(), bits=8, symmetric=False)
        return fake_quantize(x, scale, zero_point, bits=8, signed=False)


def quantize_dynamic(model: nn.Module) -> nn.Module:
    """A copy of the model whose Conv2d and Linear layers multiply 8-bit inputs with 8-bit weights.

    Weights have one symmetric grid a channel, inputs one asymmetric grid found at each call. Each layer
    becomes a pair, ``nn.Sequential(QuantizedInput(), layer)``. The given model is left alone and nothing is
    shared with it.

    Raises:
        CompressionError: no Conv2d or Linear layer.
    """
    return replace_layers(
        model, lambda _, layer: nn.Sequential(QuantizedInput(), quantize_layer(layer, bits=8))
    )
