"""Frozen networks, one file each."""
