"""Random subsets of an image's channels, each a pure function of one key (hierarchical channel sampling, ChannelViT).

First the number of channels, uniformly from 1 to all, then which, uniformly among the subsets of that size: small and
large subsets are as frequent as one another, and the model learns to embed images of any number of channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sample_channels(keys: jax.Array, channels: int, *, keep: int | None = None) -> jax.Array:
    """Which channels are present, bool [..., channels], by typed random keys [...]; never none.

    `keep`: a channel that is always among them; the number stays uniform, the rest is drawn among the others.
    """

    earlier = jnp.tril(jnp.ones((channels, channels), bool), -1)

    def of_key(key: jax.Array) -> jax.Array:
        uniform = jax.random.uniform(key, (channels + 1,), jnp.float32)
        count = jnp.minimum(1 + jnp.floor(uniform[0] * channels).astype(jnp.int32), channels)
        score = uniform[1:] if keep is None else uniform[1:].at[keep].set(-1.0)
        # Compared pair by pair: so few numbers need no sorting, which takes seconds to compile.
        before = (score[None] < score[:, None]) | ((score[None] == score[:, None]) & earlier)
        return before.sum(-1) < count

    draw = of_key
    for _ in keys.shape:
        draw = jax.vmap(draw)
    return draw(keys)
