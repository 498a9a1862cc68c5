"""The textbook: one folder a family, one page a method. A model goes in, a new model comes out."""

__all__: list[str] = []
