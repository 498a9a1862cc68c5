"""Techniques: one folder per family, one module per method, each from a model to a compressed copy."""

__all__: list[str] = []
