"""Three whole updates against an independent PyTorch implementation, tensor by tensor."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import CHANNELS, EXPERIMENT, as_float64, changed

from protloc_jax.data.batch import Batch
from protloc_jax.train.methods import METHODS
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import step_function
from protloc_jax.views.multicrop import Views

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="the oracle is written in torch")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "peers"))
from torch_dino import Block, Sizes, Training, Vit, dino_loss, dino_loss_summed  # noqa: E402

# Two frozen steps, so that the last layer's Adam lags; the clip bites in some tensors and not in all.
EXPERIMENT = changed(
    EXPERIMENT, model={"drop_path": 0.0}, optim={"clip": 0.5, "lr": 5e-3, "freeze_last_layer_epochs": 0.5}
)
BATCH = 6


def fixed_views(number, dtype):
    rng = np.random.default_rng(number)
    return Views(
        rng.standard_normal((BATCH, 2, 32, 32, 2)).astype(dtype),
        rng.standard_normal((BATCH, 2, 16, 16, 2)).astype(dtype),
    )


def as_crops(views):
    return [torch.tensor(np.moveaxis(v, -1, 2).copy()) for v in (views.global_, views.local)]


def by_torch_name(tree):
    """Our tree of parameters, moments or gradients under the peer's names and layouts."""
    out = {}
    b, h = tree["backbone"], tree["head"]
    out["backbone.stem.weight"] = b["stem"]["kernel"].transpose(3, 2, 0, 1)
    out["backbone.stem.bias"] = b["stem"]["bias"]
    out["backbone.cls"], out["backbone.pos"] = b["cls"], b["pos"]
    out["backbone.norm.weight"], out["backbone.norm.bias"] = b["norm"]["scale"], b["norm"]["bias"]
    for i in range(len(b["blocks"]["norm1"]["scale"])):
        block = jax.tree.map(lambda x, i=i: x[i], b["blocks"])
        name = f"backbone.blocks.{i}"
        for norm in ("norm1", "norm2"):
            out[f"{name}.{norm}.weight"], out[f"{name}.{norm}.bias"] = block[norm]["scale"], block[norm]["bias"]
        for part, layer in (("attn", "qkv"), ("attn", "proj"), ("mlp", "fc1"), ("mlp", "fc2")):
            out[f"{name}.{layer}.weight"] = block[part][layer]["kernel"].T
            out[f"{name}.{layer}.bias"] = block[part][layer]["bias"]
    for i in range(EXPERIMENT.method.layers):
        out[f"head.mlp.{i}.weight"], out[f"head.mlp.{i}.bias"] = h[f"mlp_{i}"]["kernel"].T, h[f"mlp_{i}"]["bias"]
    out["head.last.parametrizations.weight.original0"] = h["last"]["g"][:, None]
    out["head.last.parametrizations.weight.original1"] = h["last"]["v"].T
    return out


def load(network, tree):
    tensors = {name: torch.tensor(np.asarray(value)) for name, value in by_torch_name(jax.device_get(tree)).items()}
    network.load_state_dict(tensors, strict=True)


def largest_error(ours, theirs):
    """The largest difference, as a share of the tensor's largest value."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    return np.abs(np.asarray(ours) - theirs).max() / max(np.abs(theirs).max(), 1e-30)


def make_training(state):
    model, method = EXPERIMENT.model, EXPERIMENT.method
    sizes = Sizes(
        channels=2,
        image_size=model.image_size,
        patch=model.patch,
        dim=model.dim,
        depth=model.depth,
        heads=model.heads,
        mlp=4 * model.dim,
        out_dim=method.out_dim,
        hidden=method.hidden,
        bottleneck=method.bottleneck,
        head_layers=method.layers,
    )
    training = Training(sizes, clip=EXPERIMENT.optim.clip)
    if jax.tree.leaves(state.params)[0].dtype == jnp.float64:
        training.student.double(), training.teacher.double()
        training.centre = training.centre.double()
    load(training.student, state.params)
    load(training.teacher, state.teacher)
    return training


def test_three_updates_in_float64_are_equal_to_1e_8():
    with jax.enable_x64(True):
        schedules = Schedules(EXPERIMENT, 4)
        method = METHODS["dino"](EXPERIMENT, CHANNELS)
        state = as_float64(jax.jit(lambda: init_state(EXPERIMENT, CHANNELS, jax.random.key(3)))())
        # Not from step 0, whose learning rate is 0. The schedule freezes the last layer at step 1 only.
        state = state._replace(step=state.step + 1)
        step = jax.jit(step_function(EXPERIMENT, method, schedules, lambda batch, *_: batch.image))
        training = make_training(state)
        clipped = 0
        for number in range(1, 4):
            scalars = {name: float(v) for name, v in schedules(number).items() if name != "centre_momentum"}
            frozen = bool(scalars.pop("freeze_last_layer"))
            assert frozen == (number == 1)
            views = fixed_views(number, np.float64)
            state, metrics = step(state, Batch(views, np.zeros((BATCH, 2), np.int32)))
            loss = float(training.step(as_crops(views), freeze_last_layer=frozen, **scalars))
            assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-10)
            clipped += float(metrics["grad_norm"]) > EXPERIMENT.optim.clip
            for name, ours, theirs in (
                ("params", state.params, training.student),
                ("teacher", state.teacher, training.teacher),
            ):
                theirs = dict(theirs.named_parameters())
                for tensor, value in by_torch_name(jax.device_get(ours)).items():
                    assert largest_error(value, theirs[tensor]) < 1e-8, (name, tensor, number)
            for which, moment in (("exp_avg", state.opt_state.mu), ("exp_avg_sq", state.opt_state.nu)):
                theirs = dict(training.student.named_parameters())
                for tensor, value in by_torch_name(jax.device_get(moment)).items():
                    kept = training.optimiser.state.get(theirs[tensor], {}).get(which)
                    if kept is None:
                        assert not np.any(value), (which, tensor)
                    else:
                        assert largest_error(value, kept) < 1e-8, (which, tensor, number)
            assert largest_error(state.buffers["centre"], training.centre) < 1e-8
        assert clipped
        assert int(state.opt_state.updates["main"]) == 3


def test_float32_loss_and_gradients_are_equal_to_1e_4():
    method = METHODS["dino"](EXPERIMENT, CHANNELS)
    state = jax.jit(lambda: init_state(EXPERIMENT, CHANNELS, jax.random.key(3)))()
    views, scalars = fixed_views(0, np.float32), Schedules(EXPERIMENT, 4)(0)

    def objective(params):
        batch, keys = Batch(None, None), jax.random.split(jax.random.key(0), BATCH)
        output = method.loss(params, state.teacher, state.buffers, views, batch=batch, keys=keys, scalars=scalars)
        return output.loss

    loss, grads = jax.jit(jax.value_and_grad(objective))(state.params)
    training = make_training(state)
    crops = as_crops(views)
    temps = (float(scalars["student_temp"]), float(scalars["teacher_temp"]))
    with torch.no_grad():
        target = training.teacher(crops[:1])
    expected = dino_loss(training.student(crops), target, training.centre, *temps)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-4)
    theirs = dict(training.student.named_parameters())
    for tensor, value in by_torch_name(jax.device_get(grads)).items():
        if theirs[tensor].grad is None:
            assert not np.any(value)
        else:
            assert largest_error(value, theirs[tensor].grad) < 1e-4, tensor


def test_peers_loss_is_the_same_without_laying_out_pairs():
    """The peer's quick form, used on accelerators, has the value and the gradients of the published loop."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 17, generator=generator, dtype=torch.float64)
    target = torch.randn(3, 2, 17, generator=generator, dtype=torch.float64)
    centre = torch.randn(17, generator=generator, dtype=torch.float64)
    results = []
    for loss_of in (dino_loss, dino_loss_summed):
        student = logits.clone().requires_grad_()
        loss = loss_of(student, target, centre, 0.1, 0.04)
        loss.backward()
        results.append((loss.detach(), student.grad))
    for slow, quick in zip(*results, strict=True):
        assert float(slow.abs().max()) > 0
        torch.testing.assert_close(quick, slow, rtol=1e-12, atol=1e-14)


def test_peers_patches_by_a_product_equal_its_convolution():
    torch.manual_seed(0)
    vit = Vit(Sizes(channels=3, image_size=32, patch=8, dim=12, depth=0, heads=1)).double()
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    by_convolution = vit.patches(images)
    vit.product = True
    assert by_convolution.shape == (2, 6, 12)
    torch.testing.assert_close(vit.patches(images), by_convolution, rtol=1e-12, atol=1e-12)


def test_peers_written_out_attention_is_its_fused_one():
    torch.manual_seed(0)
    sizes = Sizes(dim=12, heads=3, mlp=16)
    fused, plain = Block(sizes).double(), Block(sizes, fused=False).double()
    plain.load_state_dict(fused.state_dict())
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(plain(x), fused(x), rtol=1e-12, atol=1e-12)
