"""Models: the course's architectures, their trained weights, and tools to inspect or change any network."""
