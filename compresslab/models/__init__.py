"""Networks: the course's architectures, their trained weights, and tools that read or change any network."""
