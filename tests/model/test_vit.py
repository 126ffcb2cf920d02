"""The transformer against a float64 NumPy oracle, and the execution switches against each other."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from protloc_jax.model.attention import Attention
from protloc_jax.model.config import VitConfig
from protloc_jax.model.droppath import branch_gains
from protloc_jax.model.flops import parameter_shapes
from protloc_jax.model.vit import Vit

CONFIG = VitConfig(
    size="custom",
    dim=24,
    depth=2,
    heads=3,
    mlp_ratio=3,
    channels=4,
    patch=4,
    image_size=16,
    registers=2,
    layerscale=0.3,
    drop_path=0.5,
)
SHAPE = (3, 18, 18, 4)  # two rows and columns beyond the last whole patch: dropped


def layer_norm(x, p, eps):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def oracle(params, images, config, gains=None, seen=None):
    """One image and one head at a time, float64: (tokens after each block, attention weights of each block).

    Where `seen` [B, N] is False no token attends to that patch.
    """
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    dim, depth, heads, _ = config.shape
    size, width = config.patch, dim // heads
    outputs, maps = [], []
    for number, image in enumerate(np.asarray(images, np.float64)):
        tokens = []
        for row in range(image.shape[0] // size):
            for column in range(image.shape[1] // size):
                cut = image[row * size : (row + 1) * size, column * size : (column + 1) * size]
                tokens.append(np.einsum("hwc,hwcd->d", cut, p["stem"]["kernel"]) + p["stem"]["bias"])
        x = np.stack(tokens) + p["pos"][0, 1:]
        x = np.concatenate([p["cls"][0] + p["pos"][0, :1], p["registers"][0], x])
        of_image, of_maps = [], []
        for i in range(depth):
            b = jax.tree.map(lambda a: a[i], p["blocks"])  # noqa: B023
            y = layer_norm(x, b["norm1"], config.norm_eps)
            fused = y @ b["attn"]["qkv"]["kernel"] + b["attn"]["qkv"]["bias"]
            mixed, weights = np.empty_like(y), []
            for h in range(heads):
                at = slice(h * width, (h + 1) * width)
                query, key, value = (fused[:, j * dim : (j + 1) * dim][:, at] for j in range(3))
                logits = query @ key.T / np.sqrt(width)
                weight = np.exp(logits - logits.max(-1, keepdims=True))
                if seen is not None:
                    weight[:, 1 + config.registers :][:, ~seen[number]] = 0
                weight /= weight.sum(-1, keepdims=True)
                weights.append(weight)
                mixed[:, at] = weight @ value
            y = (mixed @ b["attn"]["proj"]["kernel"] + b["attn"]["proj"]["bias"]) * b["ls1"]
            x = x + y * (1.0 if gains is None else gains[i, 0, number])
            y = layer_norm(x, b["norm2"], config.norm_eps)
            y = y @ b["mlp"]["fc1"]["kernel"] + b["mlp"]["fc1"]["bias"]
            y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
            y = (y @ b["mlp"]["fc2"]["kernel"] + b["mlp"]["fc2"]["bias"]) * b["ls2"]
            x = x + y * (1.0 if gains is None else gains[i, 1, number])
            of_image.append(layer_norm(x, p["norm"], config.norm_eps))
            of_maps.append(np.stack(weights))
        outputs.append(of_image)
        maps.append(of_maps)
    return np.moveaxis(np.array(outputs), 0, 1), np.moveaxis(np.array(maps), 0, 1)


def scrambled(config, dtype=jnp.float32, seed=0):
    """Parameters with every leaf random (biases and gains too), so that a missing one shows."""
    leaves, tree = jax.tree.flatten(parameter_shapes(config))
    rng = np.random.default_rng(seed)
    leaves = [jnp.asarray(0.25 * rng.normal(size=a.shape), dtype) for a in leaves]
    return jax.tree.unflatten(tree, leaves)


def images(dtype=np.float32, shape=SHAPE):
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_forward_equals_the_numpy_oracle(dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        params, x = scrambled(CONFIG, dtype), images(dtype)
        keys = jax.random.split(jax.random.key(5), len(x))
        apply = jax.jit(lambda *a: Vit(CONFIG).apply(*a, layers=(0, -1), attention=True))
        out = apply({"params": params}, x, keys)
        gains = np.asarray(branch_gains(keys, CONFIG.drop_path, CONFIG.shape.depth))
        tokens, maps = oracle(params, x, CONFIG, gains)
        assert out.cls.dtype == out.attention.dtype == dtype
        for got, want in [
            (out.cls, tokens[-1, :, 0]),
            (out.registers, tokens[-1, :, 1:3]),
            (out.patches, tokens[-1, :, 3:]),
            (out.layers[0][0], tokens[0, :, 0]),
            (out.layers[0][1], tokens[0, :, 3:]),
            (out.layers[1][1], tokens[1, :, 3:]),
            (out.attention, maps[-1]),
        ]:
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)
        assert 0 < (gains == 0).sum() < gains.size


def test_gradient_equals_a_central_difference_of_the_oracle():
    with jax.enable_x64(True):
        params, x = scrambled(CONFIG, jnp.float64), images(np.float64)[:1]
        direction = scrambled(CONFIG, jnp.float64, seed=7)
        weight = np.random.default_rng(2).normal(size=(1, 1 + 2 + 16, 24))

        def of_oracle(step):
            moved = jax.tree.map(lambda a, d: np.asarray(a + step * d), params, direction)
            return (oracle(moved, x, CONFIG)[0][-1] * weight).sum()

        def of_model(p):
            out = Vit(CONFIG).apply({"params": p}, x)
            return (jnp.concatenate([out.cls[:, None], out.registers, out.patches], 1) * weight).sum()

        gradient = jax.jit(jax.grad(of_model))(params)
        got = sum(float((a * b).sum()) for a, b in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
        assert got == pytest.approx((of_oracle(1e-6) - of_oracle(-1e-6)) / 2e-6, rel=1e-7)


def test_scan_and_remat_change_neither_values_nor_gradients():
    with jax.enable_x64(True):
        params, x = scrambled(CONFIG, jnp.float64), images(np.float64)
        keys = jax.random.split(jax.random.key(5), len(x))
        results = []
        for scan, remat in ((True, "none"), (True, "block"), (True, "selective"), (False, "none"), (False, "block")):
            model = Vit(dataclasses.replace(CONFIG, scan=scan, remat=remat))

            def loss(p, model=model):
                out = model.apply({"params": p}, x, keys, layers=(0,))
                return (out.cls**3).sum() + (out.layers[0][1] ** 2).sum()

            results.append(jax.jit(jax.value_and_grad(loss))(params))
        for other in results[1:]:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), results[0], other)


def test_one_set_of_initial_values_whatever_the_execution():
    first, *others = (
        jax.jit(Vit(dataclasses.replace(CONFIG, scan=scan, remat=remat)).init)(jax.random.key(0), images())
        for scan, remat in ((True, "none"), (False, "none"), (True, "block"))
    )
    for other in others:
        assert jax.tree.all(jax.tree.map(np.array_equal, first, other))


@pytest.mark.parametrize(("scan", "whiles"), [(True, 1), (False, 0)])
def test_the_switches_reach_the_compiled_program(scan, whiles):
    model = Vit(dataclasses.replace(CONFIG, scan=scan, remat="block"))
    params, x = scrambled(CONFIG), images()
    text = jax.jit(lambda p: model.apply({"params": p}, x).cls).lower(params).as_text()
    assert text.count("stablehlo.while") == whiles
    gradient = str(jax.make_jaxpr(jax.grad(lambda p: model.apply({"params": p}, x).cls.sum()))(params))
    assert "remat" in gradient or "checkpoint" in gradient


def test_initial_values():
    config = VitConfig(size="Ti", channels=5, depth=2, registers=3, layerscale=1e-5)
    params = jax.jit(Vit(config).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 5)))["params"]
    blocks = params["blocks"]
    for kernel in (blocks["attn"]["qkv"], blocks["attn"]["proj"], blocks["mlp"]["fc1"], blocks["mlp"]["fc2"]):
        values = np.asarray(kernel["kernel"])
        assert not np.allclose(values[0], values[1])  # every block draws its own
        assert values.std() == pytest.approx(0.02, rel=0.02)
        assert np.abs(values).max() > 0.06  # cut at +-2, not at two standard deviations
        assert not np.any(kernel["bias"])
    for name in ("cls", "pos", "registers"):
        assert np.asarray(params[name]).std() == pytest.approx(0.02, rel=0.2)
    bound = (16 * 16 * 5) ** -0.5
    for value in (params["stem"]["kernel"], params["stem"]["bias"]):
        assert 0.95 * bound < np.abs(value).max() <= bound
    assert params["stem"]["kernel"].shape == (16, 16, 5, 192)
    assert np.all(np.asarray(blocks["ls1"]) == np.float32(1e-5))


def test_leading_axes_are_independent_examples():
    x = images(shape=(2, 3, 16, 16, 4))
    keys = jax.random.split(jax.random.key(5), (2, 3))
    params, model = scrambled(CONFIG), Vit(CONFIG)
    apply = jax.jit(lambda *a: model.apply(*a, layers=(0,), attention=True))
    nested = apply({"params": params}, x, keys)
    flat = apply({"params": params}, x.reshape(6, 16, 16, 4), keys.reshape(6))
    for a, b in zip(jax.tree.leaves(nested), jax.tree.leaves(flat), strict=True):
        np.testing.assert_allclose(np.reshape(a, b.shape), b, atol=2e-6)


def test_another_image_size_uses_the_resized_table():
    params, model = scrambled(CONFIG), Vit(CONFIG)
    out = model.apply({"params": params}, images(shape=(2, 12, 24, 4)), attention=True)
    assert out.patches.shape == (2, 3 * 6, 24)
    np.testing.assert_allclose(np.asarray(out.attention).sum(-1), 1.0, rtol=1e-5)


def test_no_position_table_with_position_none():
    config = dataclasses.replace(CONFIG, position="none", registers=0)
    params = jax.jit(Vit(config).init)(jax.random.key(0), images())["params"]
    assert "pos" not in params
    assert "registers" not in params
    shuffled = images(shape=(1, 16, 16, 4)).reshape(1, 4, 4, 16, 4)[:, ::-1].reshape(1, 16, 16, 4)
    apply = jax.jit(Vit(config).apply)
    a, b = (apply({"params": params}, x).cls for x in (images(shape=(1, 16, 16, 4)), shuffled))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_bad_input_is_refused():
    model, params = Vit(CONFIG), scrambled(CONFIG)

    def run(shape=SHAPE, dtype=np.float32, **options):
        return model.apply({"params": params}, np.zeros(shape, dtype), **options)

    with pytest.raises(ValueError, match=r"expected \[\.\.\., H, W, 4 channels\]"):
        run((1, 16, 16, 3))
    with pytest.raises(ValueError, match="smaller than one patch"):
        run((1, 16, 3, 4))
    with pytest.raises(TypeError, match="uint8"):
        run(dtype=np.uint8)
    with pytest.raises(ValueError, match=r"layers \[2, -3\]"):
        run(layers=(0, 2, -3))
    with pytest.raises(ValueError, match="one key each"):
        run(drop_keys=jax.random.split(jax.random.key(0), 2))


@pytest.mark.parametrize("tokens", [6, 7])
def test_the_fused_attention_is_the_same_attention(tokens):
    """The path around the fused kernel, with XLA in the kernel's place; an odd length is padded and hidden."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, tokens, 16)), jnp.float32)
    plain = Attention(16, 4)
    variables = plain.init(jax.random.key(0), x)
    fused = plain.apply(variables, x, method=lambda module, x: module.proj(module._by_kernel(module.qkv(x), "xla")))
    np.testing.assert_allclose(fused, plain.apply(variables, x), atol=1e-6)


def test_the_fused_kernel_needs_half_precision():
    with pytest.raises(ValueError, match="needs dtype='bfloat16'"):
        VitConfig(attention="cudnn")


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
def test_the_fused_kernel_on_the_device():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 197, 384)), jnp.bfloat16)
    plain = Attention(384, 6, dtype=jnp.bfloat16)
    variables = plain.init(jax.random.key(0), x)
    fused = Attention(384, 6, dtype=jnp.bfloat16, implementation="cudnn")

    def loss(module):
        return jax.value_and_grad(lambda v: jnp.square(module.apply(v, x).astype(jnp.float32)).mean())(variables)

    (value, grads), (other, others) = loss(plain), loss(fused)
    np.testing.assert_allclose(other, value, rtol=2e-2)
    for a, b in zip(jax.tree.leaves(others), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(a, b, atol=0.05 * np.abs(b).max())
