"""Dynamic quantization: integer weights, and activations quantized at run time.

The grid of a layer's weights is computed once. The range of its input is not known in advance, so at every
call the layer finds the smallest and the largest input and quantizes to the grid between them. It needs no
calibration data and no settings.

    s_x, z_x from min x and max x,    y = s_x · s_w[c] · Σ (q_x - z_x) · q_w[c]  +  b

The sum of 8-bit products is exact in 32 bits. Here it is simulated in floats: the layer multiplies
s_x (q_x - z_x) by s_w q_w, so the output differs from integer arithmetic only by float rounding.

What it saves: three quarters of the file and, with an integer kernel, of the memory traffic for weights. What
it costs: each layer reads its input twice, once for the range and once to quantize it, and converts its
32-bit sums to floats. Whether it saves time depends on the engine. ONNX Runtime has one fused kernel for
*linear* layers, so a wide multilayer perceptron is much faster. For **convolutions** it has only the general
integer kernel, which takes longer than the float convolution even without the passes for ranges (lab 01
measures both). For convolutional networks use ``static``, which measures ranges in advance. What is left out:
one range per image. The range covers the whole batch, so an image's result depends slightly on the others.

Source: ranges at run time are common practice without an original paper; ONNX has the operator
``DynamicQuantizeLinear``. The arithmetic: Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from torch import Tensor, nn

from compresslab.techniques.quantization.affine import fake_quantize, scale_and_zero_point
from compresslab.techniques.quantization.weight_only import quantize_layer, replace_layers

__all__ = ["QuantizedInput", "quantize_dynamic"]


class QuantizedInput(nn.Module):
    """Round each input to 256 levels between its smallest and its largest value."""

    only_rounds = True  # so that a traced network omits it

    def forward(self, x: Tensor) -> Tensor:
        scale, zero_point = scale_and_zero_point(x.amin(), x.amax(), bits=8, symmetric=False)
        return fake_quantize(x, scale, zero_point, bits=8, signed=False)


def quantize_dynamic(model: nn.Module) -> nn.Module:
    """Return a copy whose Conv2d and Linear layers multiply 8-bit inputs by 8-bit weights.

    Weights have one symmetric grid per channel, inputs one asymmetric grid per call. Each layer becomes a
    pair, ``nn.Sequential(QuantizedInput(), layer)``. The given model is not changed and shares nothing with
    the copy.

    Raises:
        Unsupported: the model has no Conv2d or Linear layer.
    """
    return replace_layers(
        model, lambda _, layer: nn.Sequential(QuantizedInput(), quantize_layer(layer, bits=8))
    )
