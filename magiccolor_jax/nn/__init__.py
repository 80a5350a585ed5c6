"""Layers that three networks use unchanged."""
