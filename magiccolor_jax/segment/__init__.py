"""Masks of instances in pictures: SAM, and what needs no weights."""
