"""What a student's notebook imports: ``lab`` (check, hint, reveal, yours), ``metric`` and ``verdict``."""

from compresslab.notebook.menus import Menus, lab
from compresslab.notebook.metrics import metric, verdict

__all__ = ["Menus", "lab", "metric", "verdict"]
