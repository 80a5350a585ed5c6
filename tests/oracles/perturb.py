"""Random weights that hide nothing: no tensor stays at zero, at one, or symmetric."""

import torch
from torch import nn

HINT_GAIN = 1.7
"""SiLU gives back about half of what it gets: at gain 1 a hint is lost after the guiders' eight
plain convolutions. Everywhere else a norm restores the scale, and more than 1 would pile up in the
residual stream."""


def perturb_(module: nn.Module, seed: int) -> nn.Module:
    """Redraws every parameter in place; returns the module, frozen and in eval mode.

    Deterministic in `seed` and the order of `module.named_parameters()`. Scales are chosen so that
    activations stay of order one through deep networks, and every input keeps its influence:

    - `weight` of two axes and more (zero convolutions too): normal / sqrt(fan-in), HINT_GAIN times
      that in a guider's hint embedding;
    - `bias`: 0.1 normal;
    - other vectors that are constant at first (norm and layer scales): 1 + 0.2 normal;
    - all else (tokens, position tables): 0.5 normal.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(_drawn(name, parameter, noise))
    return module.eval().requires_grad_(False)


def _drawn(name: str, parameter: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    if name.endswith("weight") and parameter.ndim > 1:
        gain = HINT_GAIN if "controlnet_cond_embedding" in name else 1.0
        return gain * noise / parameter[0].numel() ** 0.5
    if name.endswith("bias"):
        return 0.1 * noise
    if parameter.ndim == 1 and bool((parameter == parameter[0]).all()):
        return 1 + 0.2 * noise
    return 0.5 * noise
