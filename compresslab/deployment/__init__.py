"""Deployment: export of a network to ONNX (``export``), and inference with ONNX Runtime (``runtime``).

Neither module depends on a technique; both use the computation graph of ``models.graph``.
"""

from compresslab.deployment.export import quantize_dynamic_onnx, write_onnx
from compresslab.deployment.runtime import Deployed, has_vnni, load_deployed, read_onnx

__all__ = ["Deployed", "has_vnni", "load_deployed", "quantize_dynamic_onnx", "read_onnx", "write_onnx"]
