"""The paper's cross-attention context: DINOv2 tokens of all instances (recipe `dinov2`)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class ContextConfig:
    """Sizes of the token MLP; defaults fit DINOv2 ViT-L and Stable Diffusion 1.5."""

    inputs: int = 1024
    """Width of the DINOv2 tokens."""
    hidden: int = 1024
    """Width between the two linear maps."""
    outputs: int = 768
    """Width of the cross-attention context."""
    dtype: DTypeLike = jnp.float32
    """Compute dtype."""
    param_dtype: DTypeLike = jnp.float32
    """Storage dtype of the parameters."""

    @classmethod
    def nano(cls, **overrides) -> "ContextConfig":
        """Test-sized."""
        sizes: dict[str, Any] = {"inputs": 32, "hidden": 16, "outputs": 24}
        return cls(**(sizes | overrides))


class ContextEncoder(nnx.Module):
    """LayerNorm, Linear, GELU, Linear on each token (paper, §3.2)."""

    def __init__(self, cfg: ContextConfig, *, rngs: nnx.Rngs):
        kinds = {"dtype": cfg.dtype, "param_dtype": cfg.param_dtype, "rngs": rngs}
        self.cfg = cfg
        self.norm = nnx.LayerNorm(cfg.inputs, epsilon=EPSILON, use_fast_variance=False, **kinds)
        self.proj_in = nnx.Linear(cfg.inputs, cfg.hidden, **kinds)
        self.proj_out = nnx.Linear(cfg.hidden, cfg.outputs, **kinds)

    def __call__(self, tokens: Float[Array, "B S C"]) -> Float[Array, "B S E"]:
        hidden = self.proj_in(self.norm(tokens))
        return self.proj_out(jax.nn.gelu(hidden, approximate=False))
