"""What a student's notebook imports: ``lab`` (check, hint, reveal, yours), ``metric`` and ``verdict``."""

from compresslab.notebook.menus import Desk, lab
from compresslab.notebook.metrics import metric, verdict

__all__ = ["Desk", "lab", "metric", "verdict"]
