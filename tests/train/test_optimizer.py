"""The optimiser against torch and optax, per-tensor clipping, and parameters that sit out updates."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_step import CHANNELS, EXPERIMENT, changed

from protloc_jax.train.experiment import OptimConfig
from protloc_jax.train.optimizer import (
    apply_updates,
    clip_factors,
    init_optimizer,
    is_decayed,
    layer_scale,
    moving_average,
    plan_updates,
    square_norms,
    with_own_backbone,
)
from protloc_jax.train.state import init_state

CONFIG = OptimConfig(clip=3.0)
LR, DECAY = (1e-2, 3e-3, 2e-2, 1e-2), (0.04, 0.1, 0.2, 0.4)
# Which of four updates the last layer sits out, first, middle and none.
FROZEN = (True, False, True, False)
# And the backbone, in a run that begins with it frozen.
FROZEN_BACKBONE = (True, True, False, False)


def params():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape))  # noqa: E731
    return {
        "backbone": {"cls": draw(1, 1, 4), "blocks": {"fc": {"kernel": draw(3, 4, 5), "bias": draw(3, 5)}}},
        "head": {"mlp_0": {"kernel": draw(4, 6), "bias": draw(6)}, "last": {"v": draw(6, 8), "g": draw(8)}},
    }


def gradients(number):
    rng = np.random.default_rng(100 + number)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape) * rng.choice([0.01, 1.0, 30.0])), params())


def group(path, *, fixed=("head/last/g",)):
    return "fixed" if path in fixed else "last" if path.startswith("head/last/") else "main"


def advance(p, state, grads, *, lr, decay, frozen=False, good=True, config=CONFIG, groups=group, frozen_backbone=None):
    plan = plan_updates(p, groups, config)
    return apply_updates(
        p,
        grads,
        state,
        plan=plan,
        factors=clip_factors(square_norms(grads, plan), config.clip),
        lr=jnp.asarray(lr),
        weight_decay=jnp.asarray(decay),
        freeze_last=jnp.asarray(frozen),
        good=jnp.asarray(good),
        config=config,
        freeze_backbone=None if frozen_backbone is None else jnp.asarray(frozen_backbone),
    )


def unstacked(tree):
    """Tensors by name as PyTorch would hold them: one a block."""
    flat = {
        jax.tree_util.keystr(k, simple=True, separator="."): np.asarray(v) for k, v in jax.tree.leaves_with_path(tree)
    }
    out = {}
    for name, value in flat.items():
        if ".blocks." in name:
            out |= {f"{name}.{i}": v for i, v in enumerate(value)}
        else:
            out[name] = value
    return out


@pytest.mark.torch
def test_four_updates_equal_torch_with_clipping_and_a_layer_that_sits_some_out():
    torch = pytest.importorskip("torch", reason="the oracle is torch.optim.AdamW")
    with jax.enable_x64(True):
        p, state, step = params(), init_optimizer(params()), jax.jit(advance)
        tensors = {n: torch.nn.Parameter(torch.tensor(v.copy())) for n, v in unstacked(p).items()}
        trained = {n: t for n, t in tensors.items() if n != "head.last.g"}
        decayed = [t for n, t in trained.items() if "bias" not in n]
        rest = [t for n, t in trained.items() if "bias" in n]
        adam = torch.optim.AdamW([{"params": decayed}, {"params": rest, "weight_decay": 0.0}])
        for i, (lr, decay, frozen) in enumerate(zip(LR, DECAY, FROZEN, strict=True)):
            grads = gradients(i)
            p, state = step(p, state, grads, lr=lr, decay=decay, frozen=frozen)
            adam.param_groups[0] |= {"lr": lr, "weight_decay": decay}
            adam.param_groups[1]["lr"] = lr
            for name, g in unstacked(grads).items():
                g = torch.tensor(g)
                tensors[name].grad = g * min(1.0, 3.0 / (float(g.norm()) + 1e-6))
                if name not in trained or (frozen and "last" in name):
                    tensors[name].grad = None
            adam.step()
            for name, value in unstacked(p).items():
                np.testing.assert_allclose(value, tensors[name].detach().numpy(), rtol=1e-12, err_msg=f"{name}, {i}")
        assert int(state.updates["main"]) == 4
        assert int(state.updates["last"]) == FROZEN.count(False)


@pytest.mark.torch
def test_a_backbone_frozen_at_first_equals_torch_with_absent_gradients():
    """Its moments, bias correction and decay begin with its own first update; the last layer has another count."""
    torch = pytest.importorskip("torch", reason="the oracle is torch.optim.AdamW")
    config = OptimConfig(clip=0.0)
    step = jax.jit(functools.partial(advance, config=config, groups=with_own_backbone(group)))
    with jax.enable_x64(True):
        p, state = params(), init_optimizer(params(), freezes_backbone=True)
        tensors = {n: torch.nn.Parameter(torch.tensor(v.copy())) for n, v in unstacked(p).items()}
        decayed = [t for n, t in tensors.items() if "bias" not in n]
        rest = [t for n, t in tensors.items() if "bias" in n]
        adam = torch.optim.AdamW([{"params": decayed}, {"params": rest, "weight_decay": 0.0}])
        for i, (lr, decay) in enumerate(zip(LR, DECAY, strict=True)):
            frozen = {"head.last.v": FROZEN[i], "backbone": FROZEN_BACKBONE[i], "head.last.g": True}
            grads = gradients(i)
            p, state = step(p, state, grads, lr=lr, decay=decay, frozen=FROZEN[i], frozen_backbone=FROZEN_BACKBONE[i])
            adam.param_groups[0] |= {"lr": lr, "weight_decay": decay}
            adam.param_groups[1]["lr"] = lr
            for name, g in unstacked(grads).items():
                absent = any(name.startswith(part) and now for part, now in frozen.items())
                tensors[name].grad = None if absent else torch.tensor(g)
            adam.step()
            for name, value in unstacked(p).items():
                np.testing.assert_allclose(value, tensors[name].detach().numpy(), rtol=1e-12, err_msg=f"{name}, {i}")
        assert {name: int(n) for name, n in state.updates.items()} == {"main": 4, "last": 2, "backbone": 2}


def test_a_frozen_backbone_is_adam_of_its_own_updates_alone():
    """In float64 NumPy: the backbone after four steps is that of two steps, the third and fourth."""
    config = OptimConfig(clip=0.0)
    step = jax.jit(functools.partial(advance, config=config, groups=with_own_backbone(group)))
    with jax.enable_x64(True):
        p, state = params(), init_optimizer(params(), freezes_backbone=True)
        for i, frozen in enumerate(FROZEN_BACKBONE):
            p, state = step(p, state, gradients(i), lr=LR[i], decay=DECAY[i], frozen_backbone=frozen)
            if frozen:
                jax.tree.map(np.testing.assert_array_equal, p["backbone"], params()["backbone"])
                assert not any(np.any(m) for m in jax.tree.leaves((state.mu["backbone"], state.nu["backbone"])))
        w = np.asarray(params()["backbone"]["cls"])
        m = v = np.zeros_like(w)
        for count, i in enumerate((2, 3), start=1):
            g = np.asarray(gradients(i)["backbone"]["cls"])
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            direction = m / (1 - 0.9**count) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
            w = w - LR[i] * (direction + DECAY[i] * w)
        np.testing.assert_allclose(p["backbone"]["cls"], w, rtol=1e-12)


def test_a_state_without_freezing_has_the_groups_it_always_had():
    assert list(init_optimizer(params()).updates) == ["main", "last"]
    assert with_own_backbone(group)("head/last/v") == "last" and with_own_backbone(group)("head/mlp_0/bias") == "main"
    assert with_own_backbone(lambda _: "fixed")("backbone/pos") == "fixed"


def test_the_teachers_backbone_does_not_drift_while_the_students_is_frozen():
    """An average of equals is not bit-equal to them in float32, so it is not taken."""
    p = {"backbone": jnp.linspace(0.1, 3.7, 999), "head": jnp.ones(3)}
    teacher = {"backbone": jnp.copy(p["backbone"]), "head": jnp.zeros(3)}
    ema = {"backbone": "backbone", "head": "head"}
    on = {"momentum": jnp.asarray(0.996), "good": jnp.asarray(True)}
    drifted = moving_average(teacher, p, ema, **on)
    assert not np.array_equal(drifted["backbone"], p["backbone"])
    kept = moving_average(teacher, p, ema, **on, freeze_backbone=jnp.asarray(True))
    np.testing.assert_array_equal(kept["backbone"], p["backbone"])
    np.testing.assert_array_equal(kept["head"], drifted["head"])
    thawed = moving_average(teacher, p, ema, **on, freeze_backbone=jnp.asarray(False))
    np.testing.assert_array_equal(thawed["backbone"], drifted["backbone"])


def test_without_freezing_and_clipping_it_is_optax_adamw():
    config = OptimConfig(clip=0.0)
    groups = functools.partial(group, fixed=())
    with jax.enable_x64(True):
        ours, state = params(), init_optimizer(params())
        theirs = params()
        mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "bias", theirs)
        adam = optax.adamw(1e-2, weight_decay=0.1, mask=mask)
        moments = adam.init(theirs)
        step = jax.jit(functools.partial(advance, config=config, groups=groups))
        update = jax.jit(adam.update)
        for i in range(3):
            ours, state = step(ours, state, gradients(i), lr=1e-2, decay=0.1)
            updates, moments = update(gradients(i), moments, theirs)
            theirs = optax.apply_updates(theirs, updates)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-11), ours, theirs)


def test_bias_correction_is_exact_in_float32():
    # At the first update of a tensor Adam moves every element by lr, whatever the gradient.
    p = {"w": jnp.zeros((3,), jnp.float32)}
    grads = {"w": jnp.asarray([-1.0, 7.0, 1e3], jnp.float32)}
    config = OptimConfig(clip=0.0)
    new, _ = advance(p, init_optimizer(p), grads, lr=1.0, decay=0.0, config=config, groups=lambda _: "main")
    np.testing.assert_allclose(new["w"], -np.sign(grads["w"]), rtol=5e-7)


def test_a_bad_step_changes_no_bit():
    step = jax.jit(advance)
    p, state = step(params(), init_optimizer(params()), gradients(0), lr=1e-2, decay=0.1)
    grads = jax.tree.map(lambda g: g.at[(0,) * g.ndim].set(jnp.nan), gradients(1))
    after = step(p, state, grads, lr=1e-2, decay=0.1, good=False)
    jax.tree.map(np.testing.assert_array_equal, after, (p, state))
    teacher = jax.tree.map(jnp.ones_like, p)
    kept = moving_average(teacher, grads, {"head": "head"}, momentum=jnp.asarray(0.5), good=jnp.asarray(False))
    jax.tree.map(np.testing.assert_array_equal, kept, teacher)


def test_clipping_is_per_tensor_and_per_block():
    grads = {
        "backbone": {"blocks": {"w": jnp.stack([jnp.full((3, 3), v) for v in (0.1, 10.0, 2.0)])}, "x": jnp.ones(4)}
    }
    plan = plan_updates(grads, lambda _: "main", CONFIG)
    factors = clip_factors(square_norms(grads, plan), 3.0)
    np.testing.assert_allclose(factors["backbone"]["blocks"]["w"], [1.0, 3 / 30, 3 / 6], rtol=1e-6)
    assert float(factors["backbone"]["x"]) == 1.0


def test_decay_follows_the_published_rule_on_the_real_tree():
    experiment = changed(EXPERIMENT, model={"registers": 2, "layerscale": 0.1})
    shapes = jax.eval_shape(lambda: init_state(experiment, CHANNELS, jax.random.key(0)).params)
    names = [jax.tree_util.keystr(k, simple=True, separator="/") for k, _ in jax.tree.leaves_with_path(shapes)]
    decayed = {n for n in names if is_decayed(n)}
    block = "backbone/blocks/"
    assert decayed == {
        "backbone/cls",
        "backbone/pos",
        "backbone/registers",
        "backbone/stem/kernel",
        f"{block}attn/qkv/kernel",
        f"{block}attn/proj/kernel",
        f"{block}mlp/fc1/kernel",
        f"{block}mlp/fc2/kernel",
        "head/mlp_0/kernel",
        "head/mlp_1/kernel",
        "head/last/v",
        "head/last/g",
    }
    assert {"backbone/norm/scale", f"{block}norm1/bias", f"{block}ls1", "head/mlp_0/bias"} <= set(names) - decayed


def test_all_parameters_decay_where_asked():
    p = params()
    zeros = jax.tree.map(jnp.zeros_like, p)
    new, _ = advance(
        p, init_optimizer(p), zeros, lr=1e-2, decay=0.5, config=OptimConfig(decay="all"), groups=lambda _: "main"
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b * (1 - 1e-2 * 0.5), rtol=1e-6), new, p)
    some, _ = advance(p, init_optimizer(p), zeros, lr=1e-2, decay=0.5, groups=lambda _: "main")
    still = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(some), jax.tree.leaves(p), strict=True)]
    assert any(still) and not all(still)


def test_layer_wise_decay_lowers_the_rate_towards_the_input():
    assert layer_scale("backbone/stem/kernel", 3, 0.5) == (0.5**4,)
    assert layer_scale("backbone/blocks/mlp/fc1/kernel", 3, 0.5) == (0.125, 0.25, 0.5)
    assert layer_scale("backbone/norm/scale", 3, 0.5) == layer_scale("head/last/v", 3, 0.5) == ()
    p = params()
    config = OptimConfig(layer_decay=0.5)
    new, _ = advance(p, init_optimizer(p), gradients(0), lr=1e-2, decay=0.0, config=config)
    whole, _ = advance(p, init_optimizer(p), gradients(0), lr=1e-2, decay=0.0)
    moved = lambda q: np.asarray(q["backbone"]["blocks"]["fc"]["kernel"] - p["backbone"]["blocks"]["fc"]["kernel"])  # noqa: E731
    np.testing.assert_allclose(moved(new), moved(whole) * np.array([0.125, 0.25, 0.5])[:, None, None], rtol=1e-3)


def test_the_teacher_follows_all_parameters_and_only_those_named():
    p = params()
    teacher = {"head": jax.tree.map(jnp.zeros_like, p["head"]), "other": jnp.ones(2)}
    new = moving_average(teacher, p, {"head": "head"}, momentum=jnp.asarray(0.9), good=jnp.asarray(True))
    jax.tree.map(lambda t, s: np.testing.assert_allclose(t, 0.1 * s, rtol=1e-5), new["head"], p["head"])
    np.testing.assert_array_equal(new["other"], 1.0)
