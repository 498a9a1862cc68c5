"""Training: one seeded, resumable loop, and the recipes of the shipped networks."""
