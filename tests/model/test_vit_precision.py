"""Which dtype each operation runs in, read from the traced program."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax.model.config import VitConfig
from protloc_jax.model.flops import head_parameter_shapes, parameter_shapes
from protloc_jax.model.heads import DinoHead
from protloc_jax.model.vit import Vit

CONFIG = VitConfig(
    size="custom", dim=16, depth=2, heads=2, channels=2, patch=4, image_size=16, registers=1, layerscale=0.1
)


def operand_dtypes(closed):
    """{primitive name: set of floating operand dtypes} of a traced program, inner programs included."""
    found = defaultdict(set)

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            for value in equation.invars:
                dtype = getattr(value.aval, "dtype", None)
                if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                    found[equation.primitive.name].add(str(dtype))
            for inner in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    walk(inner)

    walk(closed.jaxpr)
    return found


def traced(config, dtype, size=16, *, gradient=True):
    """Operand dtypes of transformer and head; shapes only, nothing is computed."""
    model, head = Vit(config), DinoHead(12, hidden=8, bottleneck=4, dtype=config.dtype)
    params = {"vit": parameter_shapes(config), "head": head_parameter_shapes(head, 16)}
    assert {str(p.dtype) for p in jax.tree.leaves(params)} == {"float32"}
    params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype), params)
    x = jax.ShapeDtypeStruct((2, size, size, 2), dtype)

    def loss(params, x):
        cls = model.apply({"params": params["vit"]}, x).cls
        return head.apply({"params": params["head"]}, cls).sum()

    return operand_dtypes(jax.make_jaxpr(jax.value_and_grad(loss) if gradient else loss)(params, x))


def test_half_precision_keeps_its_float32_islands():
    found = traced(dataclasses.replace(CONFIG, dtype="bfloat16"), jnp.float32, gradient=False)
    assert found["dot_general"] == {"bfloat16"}
    assert found["exp"] == {"float32"}  # softmax
    assert found["rsqrt"] == {"float32"}  # layer norms and the L2 norm of the head
    assert found["sqrt"] == {"float32"}  # weight-norm
    assert found["reduce_max"] == {"float32"}
    assert found["erf"] | found["erfc"] == {"bfloat16"}


def test_the_position_table_is_resized_in_single_precision():
    found = traced(dataclasses.replace(CONFIG, dtype="bfloat16"), jnp.float32, 24, gradient=False)
    assert found["dot_general"] == {"bfloat16", "float32"}


def test_single_precision_has_nothing_narrower():
    found = traced(CONFIG, jnp.float32)
    assert set().union(*found.values()) == {"float32"}


@pytest.mark.parametrize("size", [16, 24])
def test_float64_stays_float64(size):
    with jax.enable_x64(True):
        found = traced(CONFIG, jnp.float64, size)
    assert set().union(*found.values()) == {"float64"}


def test_half_precision_is_close_to_single():
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 2)).astype(np.float32)
    params = jax.jit(Vit(CONFIG).init)(jax.random.key(0), x)["params"]
    single = jax.jit(Vit(CONFIG).apply)({"params": params}, x).cls
    half = jax.jit(Vit(dataclasses.replace(CONFIG, dtype="bfloat16")).apply)({"params": params}, x).cls
    assert half.dtype == jnp.float32
    assert 0 < float(jnp.abs(half - single).max()) < 0.05
