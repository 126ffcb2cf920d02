"""The DINO head against NumPy and PyTorch."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from protloc_jax.model.heads import DinoHead, l2_normalise

HEAD = DinoHead(out_dim=11, hidden=7, bottleneck=5, layers=3, norm_last_layer=False)


def parameters(head, dim=6, seed=0):
    shapes = jax.eval_shape(head.init, jax.random.key(0), jax.ShapeDtypeStruct((1, dim), jnp.float32))["params"]
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [rng.normal(size=a.shape) for a in leaves])


def features(shape=(4, 6)):
    return np.random.default_rng(3).normal(size=shape)


def oracle(params, x):
    for i in range(3):
        x = x @ params[f"mlp_{i}"]["kernel"] + params[f"mlp_{i}"]["bias"]
        x = x * 0.5 * (1 + erf(x / np.sqrt(2))) if i < 2 else x
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    columns = [x @ v / np.linalg.norm(v) * g for v, g in zip(params["last"]["v"].T, params["last"]["g"], strict=True)]
    return np.stack(columns, -1)


def test_logits_equal_the_numpy_oracle():
    params, x = parameters(HEAD), features()
    with jax.enable_x64(True):
        np.testing.assert_allclose(HEAD.apply({"params": params}, x), oracle(params, x), atol=1e-12)
    single = HEAD.apply({"params": params}, x.astype(np.float32))
    np.testing.assert_allclose(single, oracle(params, x), atol=1e-5)


def test_gradient_equals_a_central_difference_of_the_oracle():
    params, x, direction = parameters(HEAD), features(), parameters(HEAD, seed=1)
    weight = np.random.default_rng(2).normal(size=(4, 11))

    def of_oracle(step):
        return (oracle(jax.tree.map(lambda a, d: a + step * d, params, direction), x) * weight).sum()

    with jax.enable_x64(True):
        gradient = jax.grad(lambda p: (HEAD.apply({"params": p}, x) * weight).sum())(params)
        got = sum(float((a * b).sum()) for a, b in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    assert got == pytest.approx((of_oracle(1e-6) - of_oracle(-1e-6)) / 2e-6, rel=1e-7)


def test_any_leading_axes():
    params = parameters(HEAD)
    x = features((2, 3, 6))
    nested = HEAD.apply({"params": params}, x)
    assert nested.shape == (2, 3, 11)
    np.testing.assert_allclose(np.reshape(nested, (6, 11)), HEAD.apply({"params": params}, x.reshape(6, 6)), rtol=1e-6)


def test_the_gain_is_frozen_only_with_norm_last_layer():
    params, x = parameters(HEAD), features()
    for frozen in (True, False):
        head = dataclasses.replace(HEAD, norm_last_layer=frozen)
        gradient = jax.grad(lambda p, head=head: head.apply({"params": p}, x)[:, 0].sum())(params)
        assert np.any(gradient["last"]["g"]) != frozen
        assert np.any(gradient["last"]["v"])


def test_initial_values():
    head = DinoHead(out_dim=600, hidden=300, bottleneck=100)
    params = jax.jit(head.init)(jax.random.key(0), jnp.zeros((1, 200)))["params"]
    assert sorted(params) == ["last", "mlp_0", "mlp_1", "mlp_2"]
    for i, shape in enumerate([(200, 300), (300, 300), (300, 100)]):
        layer = params[f"mlp_{i}"]
        assert layer["kernel"].shape == shape
        assert np.std(layer["kernel"]) == pytest.approx(0.02, rel=0.02)
        assert not np.any(layer["bias"])
    assert np.all(np.asarray(params["last"]["g"]) == 1)
    assert 0.095 < np.abs(params["last"]["v"]).max() <= 0.1  # torch's default for Linear(100, ...): 1 / sqrt(100)


def test_normalising_zero_has_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: l2_normalise(x).sum())(jnp.zeros(3))
    assert value == 0
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(l2_normalise(jnp.array([3e-13, 4e-13])), [0.3, 0.4], rtol=1e-5)  # below eps: x / eps


@pytest.mark.torch
def test_logits_and_gradients_equal_torchs_weight_norm_head():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    params, x = parameters(HEAD), features()
    widths = [6, 7, 7, 5]
    linears = [torch.nn.Linear(a, b).double() for a, b in itertools.pairwise(widths)]
    for i, linear in enumerate(linears):
        linear.weight.data = torch.from_numpy(params[f"mlp_{i}"]["kernel"].T.copy())
        linear.bias.data = torch.from_numpy(params[f"mlp_{i}"]["bias"].copy())
    last = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 11, bias=False).double())
    gain, direction = last.parametrizations.weight.original0, last.parametrizations.weight.original1
    gain.data = torch.from_numpy(params["last"]["g"][:, None].copy())
    direction.data = torch.from_numpy(params["last"]["v"].T.copy())
    gelu = torch.nn.GELU()
    tensor = torch.from_numpy(x)
    out = last(torch.nn.functional.normalize(linears[2](gelu(linears[1](gelu(linears[0](tensor))))), dim=-1, eps=1e-12))
    (out**3).sum().backward()

    with jax.enable_x64(True):
        logits = HEAD.apply({"params": params}, x)
        gradient = jax.grad(lambda p: (HEAD.apply({"params": p}, x) ** 3).sum())(params)
    np.testing.assert_allclose(logits, out.detach().numpy(), atol=1e-12)
    for i, linear in enumerate(linears):
        np.testing.assert_allclose(gradient[f"mlp_{i}"]["kernel"], linear.weight.grad.numpy().T, atol=1e-10)
        np.testing.assert_allclose(gradient[f"mlp_{i}"]["bias"], linear.bias.grad.numpy(), atol=1e-10)
    np.testing.assert_allclose(gradient["last"]["g"], gain.grad.numpy()[:, 0], atol=1e-10)
    np.testing.assert_allclose(gradient["last"]["v"], direction.grad.numpy().T, atol=1e-10)
