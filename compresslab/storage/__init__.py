"""Tensors on disk: bytes are what the disk says, not what a formula promises."""

from compresslab.storage.container import Ledger, load_model, read, save_model, write

__all__ = ["Ledger", "load_model", "read", "save_model", "write"]
