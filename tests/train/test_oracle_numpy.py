"""Three whole updates against float64 NumPy in which every derivative is written out by hand.

The backbone is linear (two stacked "blocks" on pooled pixels), so that this stays readable; all else is the real step:
head, loss, centre, schedules, clipping per tensor and per block, frozen last layer, AdamW, moving average.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import CHANNELS, EXPERIMENT, as_float64, changed

from protloc_jax.data.batch import Batch
from protloc_jax.train.methods.dino import Dino
from protloc_jax.train.optimizer import init_optimizer
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import TrainState
from protloc_jax.train.step import step_function
from protloc_jax.views.multicrop import Views

B, K, PER_EPOCH = 5, 9, 2
EXPERIMENT = changed(
    EXPERIMENT,
    model={"drop_path": 0.0, "packed": False},
    method={"out_dim": K, "hidden": 10, "bottleneck": 6},
    optim={"clip": 0.2, "lr": 2e-2, "freeze_last_layer_epochs": 1, "epochs": 3},
)
LEAVES = ("backbone/blocks/kernel", "head/mlp_0/kernel", "head/mlp_0/bias", "head/mlp_1/kernel", "head/mlp_1/bias")
LEAVES += ("head/last/v", "head/last/g")


class LinearDino(Dino):
    """DINO on a linear backbone."""

    def init(self, key):
        blocks = jax.random.normal(jax.random.fold_in(key, 2), (2, 8, 8)) / 8**0.5
        head = self.head.init(key, jnp.zeros((1, 8)))["params"]
        params = {"backbone": {"blocks": {"kernel": blocks}}, "head": head}
        return params, jax.tree.map(jnp.copy, params), {"centre": jnp.zeros((K,))}

    def _encode(self, params, images, drop_keys, present=None, lines=None):
        x = pooled(images)
        for kernel in params["backbone"]["blocks"]["kernel"]:
            x = x @ kernel
        return x


def pooled(images):
    """Mean of each quadrant and channel: [B, V, S, S, 2] -> [B, V, 8]."""
    b, v, s, _, c = images.shape
    return images.reshape(b, v, 2, s // 2, 2, s // 2, c).mean((3, 5)).reshape(b, v, 8)


def forward(p, x):
    """Logits and everything that the backward pass needs."""
    first = x @ p["backbone/blocks/kernel"][0]
    features = first @ p["backbone/blocks/kernel"][1]
    a = features @ p["head/mlp_0/kernel"] + p["head/mlp_0/bias"]
    phi = 0.5 * (1 + np.vectorize(math.erf)(a / math.sqrt(2)))
    z = a * phi
    c = z @ p["head/mlp_1/kernel"] + p["head/mlp_1/bias"]
    length = np.sqrt((c**2).sum(-1, keepdims=True))
    u = c / length
    column = np.sqrt((p["head/last/v"] ** 2).sum(0))
    w = p["head/last/v"] / column
    return u @ (w * p["head/last/g"]), (x, first, features, a, phi, z, length, u, column, w)


def backward(p, saved, d_logits):
    """Gradients by name from the gradient of the logits [B, V, K]."""
    x, first, features, a, phi, z, length, u, column, w = saved
    flat = lambda t: t.reshape(-1, t.shape[-1])  # noqa: E731
    product = lambda left, right: flat(left).T @ flat(right)  # noqa: E731
    grads = {}
    d_weight = product(u, d_logits)
    grads["head/last/g"] = (d_weight * w).sum(0)
    d_w = d_weight * p["head/last/g"]
    grads["head/last/v"] = (d_w - w * (w * d_w).sum(0)) / column
    d_u = d_logits @ (w * p["head/last/g"]).T
    d_c = (d_u - u * (u * d_u).sum(-1, keepdims=True)) / length
    grads["head/mlp_1/kernel"], grads["head/mlp_1/bias"] = product(z, d_c), flat(d_c).sum(0)
    density = np.exp(-(a**2) / 2) / math.sqrt(2 * math.pi)
    d_a = (d_c @ p["head/mlp_1/kernel"].T) * (phi + a * density)
    grads["head/mlp_0/kernel"], grads["head/mlp_0/bias"] = product(features, d_a), flat(d_a).sum(0)
    d_features = d_a @ p["head/mlp_0/kernel"].T
    d_first = d_features @ p["backbone/blocks/kernel"][1].T
    grads["backbone/blocks/kernel"] = np.stack([product(x, d_first), product(first, d_features)])
    return grads


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def loss_and_gradients(p, teacher, centre, views, student_temp, teacher_temp):
    x = np.concatenate([pooled(views.global_), pooled(views.local)], axis=1)
    target_logits, _ = forward(teacher, pooled(views.global_))
    logits, saved = forward(p, x)
    target, predicted = softmax((target_logits - centre) / teacher_temp), softmax(logits / student_temp)
    pairs = [(i, j) for i in range(target.shape[1]) for j in range(predicted.shape[1]) if i != j]
    loss, d_logits = 0.0, np.zeros_like(logits)
    for i, j in pairs:
        loss -= (target[:, i] * np.log(predicted[:, j])).sum(-1).mean() / len(pairs)
        d_logits[:, j] += (predicted[:, j] - target[:, i]) / student_temp / B / len(pairs)
    return loss, backward(p, saved, d_logits), target_logits.mean((0, 1))


class Oracle:
    """The whole training state in NumPy; `update` is one step."""

    def __init__(self, params, teacher, train_gain):
        self.p, self.teacher, self.centre = params, teacher, np.zeros(K)
        self.m = {n: np.zeros_like(v) for n, v in params.items()}
        self.v = {n: np.zeros_like(v) for n, v in params.items()}
        self.t = dict.fromkeys(params, 0)
        self.train_gain = train_gain

    def update(self, step, views):
        o, d = EXPERIMENT.optim, EXPERIMENT.method
        total, warmup = o.epochs * PER_EPOCH, int(o.warmup_epochs * PER_EPOCH)
        cosine = lambda a, b, i, n: b + (a - b) * (1 + math.cos(math.pi * i / n)) / 2  # noqa: E731
        ramp = np.linspace(0, o.lr, warmup)
        lr = ramp[step] if step < warmup else cosine(o.lr, o.min_lr, step - warmup, total - warmup)
        decay = cosine(o.weight_decay, o.weight_decay_end, step, total)
        momentum = cosine(d.momentum, 1.0, step, total)
        epoch = step // PER_EPOCH
        temps = np.linspace(d.warmup_teacher_temp, d.teacher_temp, d.warmup_teacher_temp_epochs)
        loss, grads, mean_logits = loss_and_gradients(
            self.p, self.teacher, self.centre, views, d.student_temp, temps[epoch]
        )
        for name, g in grads.items():
            if name == "head/last/g" and not self.train_gain:
                continue
            if name.startswith("head/last") and epoch < o.freeze_last_layer_epochs:
                continue
            for i in range(2) if "blocks" in name else (slice(None),):
                g[i] *= min(1.0, o.clip / (np.sqrt((g[i] ** 2).sum()) + 1e-6))
            self.t[name] += 1
            if not name.endswith("bias"):
                self.p[name] = self.p[name] * (1 - lr * decay)
            self.m[name] = 0.9 * self.m[name] + 0.1 * g
            self.v[name] = 0.999 * self.v[name] + 0.001 * g**2
            m, v = self.m[name] / (1 - 0.9 ** self.t[name]), self.v[name] / (1 - 0.999 ** self.t[name])
            self.p[name] = self.p[name] - lr * m / (np.sqrt(v) + 1e-8)
        for name in self.teacher:
            self.teacher[name] = momentum * self.teacher[name] + (1 - momentum) * self.p[name]
        self.centre = 0.9 * self.centre + 0.1 * mean_logits
        return loss


def by_name(tree):
    named = {
        jax.tree_util.keystr(k, simple=True, separator="/"): np.array(v, np.float64)
        for k, v in jax.tree.leaves_with_path(tree)
    }
    return {name: named[name] for name in LEAVES}


def fixed_views(number, dtype=np.float64):
    rng = np.random.default_rng(number)
    shapes = (B, 2, 4, 4, 2), (B, 3, 2, 2, 2)
    return Views(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))


def first_state(method):
    params, teacher, buffers = method.init(jax.random.key(1))
    zero, key = jnp.zeros((), jnp.int32), jax.random.key_data(jax.random.key(0))
    return TrainState(params, teacher, buffers, init_optimizer(params), zero, jnp.zeros(2, jnp.uint32), zero, key)


def assert_equal(ours, theirs, limit=1e-8):
    for name, value in by_name(ours).items():
        scale = max(np.abs(theirs[name]).max(), 1e-30)
        assert np.abs(value - theirs[name]).max() <= limit * scale, name


@pytest.mark.parametrize("train_gain", [False, True])
def test_updates_in_float64_are_equal_to_1e_8(train_gain):
    experiment = changed(EXPERIMENT, method={"norm_last_layer": not train_gain})
    with jax.enable_x64(True):
        method = LinearDino(experiment, CHANNELS)
        state = first_state(method)
        state = as_float64(state)._replace(opt_state=init_optimizer(as_float64(state.params)))
        step = jax.jit(
            step_function(experiment, method, Schedules(experiment, PER_EPOCH), lambda batch, *_: batch.image)
        )
        oracle = Oracle(by_name(state.params), by_name(state.teacher), train_gain)
        # Two steps with the last layer frozen, then three in which its Adam lags two updates behind.
        for number in range(5):
            views = fixed_views(number)
            expected = oracle.update(number, views)
            state, metrics = step(state, Batch(views, np.zeros((B, 2), np.int32)))
            assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-10)
            assert_equal(state.params, oracle.p)
            assert_equal(state.teacher, oracle.teacher)
            assert_equal(state.opt_state.mu, oracle.m)
            assert_equal(state.opt_state.nu, oracle.v)
            np.testing.assert_allclose(state.buffers["centre"], oracle.centre, atol=1e-8 * np.abs(oracle.centre).max())
        updates = {name: int(n) for name, n in state.opt_state.updates.items()}
        assert (
            updates == {"main": oracle.t["head/mlp_0/bias"], "last": oracle.t["head/last/v"]} == {"main": 5, "last": 3}
        )


def test_float32_loss_and_gradients_are_equal_to_1e_4():
    method = LinearDino(EXPERIMENT, CHANNELS)
    state = first_state(method)
    scalars = Schedules(EXPERIMENT, PER_EPOCH)(0)

    def objective(params, views):
        batch = Batch(None, None)
        return method.loss(params, state.teacher, state.buffers, views, batch=batch, keys=None, scalars=scalars).loss

    views = fixed_views(7, np.float32)
    loss, grads = jax.jit(jax.value_and_grad(objective))(state.params, views)
    temps = (float(scalars["student_temp"]), float(scalars["teacher_temp"]))
    expected, gradients, _ = loss_and_gradients(
        by_name(state.params), by_name(state.teacher), np.zeros(K), fixed_views(7), *temps
    )
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert_equal(grads, gradients | {"head/last/g": np.zeros(K)}, limit=1e-4)
