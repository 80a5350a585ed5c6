"""Trainable networks."""
