"""Training: a seeded, resumable training loop, and the recipes of the pretrained networks."""
