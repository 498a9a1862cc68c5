"""Data sets: images in three splits, read from files that the repository ships; views and augmentation."""
