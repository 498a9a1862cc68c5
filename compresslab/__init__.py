"""compresslab: write the core of every classic compression method, see it work, measure it honestly."""
