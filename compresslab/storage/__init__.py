"""Storage formats: models and tensors on disk, with sizes taken from the written file."""

from compresslab.storage.container import Ledger, load_model, read, save_model, write

__all__ = ["Ledger", "load_model", "read", "save_model", "write"]
