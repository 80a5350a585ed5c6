"""PyTorch <-> JAX: the only installed code that may import torch."""

from converters.command import ConvertArgs, main

__all__ = ["ConvertArgs", "main"]
