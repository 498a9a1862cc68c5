"""Authoring: from a lab's source to its two editions, and the author's checks."""
