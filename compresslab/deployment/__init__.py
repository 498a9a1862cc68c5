"""Deployment: a network as an ONNX file (``writing``), and ONNX Runtime, which runs it (``running``).

``steps`` is what the two have in common with the techniques; neither of them knows any technique.
"""

from compresslab.deployment.export import quantize_dynamic_onnx, write_onnx
from compresslab.deployment.runtime import Deployed, has_vnni, load_deployed, read_onnx

__all__ = ["Deployed", "has_vnni", "load_deployed", "quantize_dynamic_onnx", "read_onnx", "write_onnx"]
