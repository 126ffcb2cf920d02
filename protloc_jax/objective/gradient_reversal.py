"""A function that is the identity, with a gradient of the opposite sign (Ganin and Lempitsky 2015, arXiv:1409.7495)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.custom_vjp
def reversed_gradient(x: jax.Array, strength: jax.Array) -> jax.Array:
    """`x`; what comes back through it is multiplied by -strength (a scalar, which gets no gradient)."""
    return x


def _forward(x: jax.Array, strength: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x, strength


def _backward(strength: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return (-strength * gradient).astype(gradient.dtype), jnp.zeros_like(strength)


reversed_gradient.defvjp(_forward, _backward)
