"""PyTorch <-> JAX: the only installed code that may import torch (DESIGN §3)."""

from converters.command import ConvertArgs, main

__all__ = ["ConvertArgs", "main"]
