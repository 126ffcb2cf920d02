"""Contrastive, BYOL and masked-pixel losses against float64 NumPy written with loops; gradients against differences."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compilation import forced_devices

from protloc_jax.objective.byol import byol_loss
from protloc_jax.objective.contrastive import info_nce, nt_xent
from protloc_jax.objective.masked import masked_pixel_loss

B, D = 5, 4


def unit(x):
    return x / np.linalg.norm(x)


def nt_xent_by_loops(z, tau):
    """Chen et al. 2020, equation 1, over the 2B projections in a row; and how many anchors find their pair alone."""
    rows = [unit(v) for example in z for v in example]
    loss, hits = 0.0, 0
    for i, anchor in enumerate(rows):
        pair = i + 1 if i % 2 == 0 else i - 1
        scores = {k: anchor @ other / tau for k, other in enumerate(rows) if k != i}
        loss -= scores[pair] - np.log(sum(np.exp(s) for s in scores.values()))
        hits += all(scores[pair] > s for k, s in scores.items() if k != pair)
    return loss / len(rows), hits / len(rows)


def info_nce_by_loops(q, k, tau):
    loss, hits = 0.0, 0
    for a, b in ((0, 1), (1, 0)):
        for i in range(len(q)):
            scores = [unit(q[i, a]) @ unit(k[j, b]) / tau for j in range(len(k))]
            loss -= scores[i] - np.log(np.sum(np.exp(scores)))
            hits += all(scores[i] > s for j, s in enumerate(scores) if j != i)
    return 2 * tau * loss / (2 * len(q)), hits / (2 * len(q))


def byol_by_loops(p, t):
    pairs = [(unit(p[i, a]), unit(t[i, 1 - a])) for i in range(len(p)) for a in (0, 1)]
    return float(np.mean([np.sum((x - y) ** 2) for x, y in pairs]))  # |x - y|^2 = 2 - 2 cos


def masked_by_loops(predicted, pixels, masked, *, normalise):
    found = []
    for guess, patch, hidden in zip(predicted, pixels, masked, strict=True):
        if hidden:
            target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6) if normalise else patch
            found.append(((guess - target) ** 2).mean())
    return float(np.mean(found))


@pytest.fixture(name="two", scope="module")
def _two():
    """Two trees of projections [B, 2, D]; examples 1 and 3 are the same in both views, and 4 has one view doubled."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, B, 2, D))
    for x in (a, b):
        x[3] = x[1]
    a[4, 1] = 2 * a[4, 0]
    return a, b


def slopes(loss, x, count=6):
    """(analytic, by central differences) slopes of a scalar loss along random directions."""
    grad = np.asarray(jax.grad(loss)(jnp.asarray(x)))
    for way in np.random.default_rng(5).normal(size=(count, *x.shape)):
        yield (grad * way).sum(), float(loss(x + 1e-6 * way) - loss(x - 1e-6 * way)) / 2e-6


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_nt_xent_and_its_gradient_with_duplicates(two, tau):
    with jax.enable_x64(True):
        loss = jax.jit(lambda z: nt_xent(z, temperature=tau))
        got = loss(two[0])
        want, hits = nt_xent_by_loops(two[0], tau)
        assert float(got.loss) == pytest.approx(want, rel=1e-12)
        assert float(got.top1) == pytest.approx(hits) and hits < 1
        for exact, near in slopes(lambda z: loss(z).loss, two[0]):
            assert exact == pytest.approx(near, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("tau", [0.2, 1.0])
def test_info_nce_and_its_gradient_with_duplicates(two, tau):
    q, k = two
    with jax.enable_x64(True):
        loss = jax.jit(functools.partial(info_nce, temperature=tau))
        want, hits = info_nce_by_loops(q, k, tau)
        assert float(loss(q, k).loss) == pytest.approx(want, rel=1e-12)
        assert float(loss(q, k).top1) == pytest.approx(hits)
        for exact, near in slopes(lambda x: loss(x, k).loss, q):
            assert exact == pytest.approx(near, rel=1e-6, abs=1e-8)
        assert not np.any(jax.grad(lambda x: loss(q, x).loss)(k)), "keys get no gradient"


def test_byol_and_its_gradient(two):
    p, t = two
    with jax.enable_x64(True):
        assert float(byol_loss(p, t)) == pytest.approx(byol_by_loops(p, t), rel=1e-12)
        for exact, near in slopes(jax.jit(lambda x: byol_loss(x, t)), p):
            assert exact == pytest.approx(near, rel=1e-6, abs=1e-8)
        assert not np.any(jax.grad(lambda x: byol_loss(p, x))(t)), "targets get no gradient"
    assert float(byol_loss(p, p[:, ::-1])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("normalise", [True, False])
def test_masked_pixels_and_their_gradient(normalise):
    rng = np.random.default_rng(2)
    predicted, pixels = rng.normal(size=(2, 3, 6, 12)) * 3 + 1
    pixels[0, 2] = 0.5  # a patch without contrast
    masked = rng.permuted(np.tile(np.arange(6) < 4, (3, 1)), axis=1)
    masked[0, 2] = True
    masked[0, np.flatnonzero(masked[0])[-1 if masked[0].sum() > 4 else 6 :]] = False
    assert masked.sum(1).tolist() == [4, 4, 4] and masked[0, 2]
    with jax.enable_x64(True):
        loss = jax.jit(functools.partial(masked_pixel_loss, normalise=normalise))
        want = np.mean([masked_by_loops(*x, normalise=normalise) for x in zip(predicted, pixels, masked, strict=True)])
        assert float(loss(predicted, pixels, masked)) == pytest.approx(want, rel=1e-12)
        for exact, near in slopes(lambda x: loss(x, pixels, masked), predicted):
            assert exact == pytest.approx(near, rel=1e-6, abs=1e-8)
        grad = jax.grad(loss)(predicted, pixels, masked)
        assert (np.abs(grad).max(-1) > 0).tolist() == masked.tolist(), "only masked patches count"


def test_half_precision_is_widened_and_wrong_shapes_are_refused(two):
    a, b = (x.astype(jnp.bfloat16) for x in two)
    for loss in (nt_xent(a, temperature=0.1).loss, info_nce(a, b, temperature=1.0).loss, byol_loss(a, b)):
        assert loss.dtype == jnp.float32
    with pytest.raises(ValueError, match="compares two views"):
        nt_xent(a[:, :1], temperature=0.1)
    for loss in (functools.partial(info_nce, temperature=1.0), byol_loss):
        with pytest.raises(ValueError, match="two views"):
            loss(a, b[:-1])


def test_eight_devices_compare_the_whole_batch():
    """Losses and batch-normed heads of a batch that is split over eight devices are those of one."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).parent / "losses_on_devices.py")],
        env=forced_devices(8),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("devices") == 8 and len(found) == 3
    for name, (one, eight) in found.items():
        np.testing.assert_allclose(eight, one, rtol=1e-10, atol=1e-12, err_msg=name)
