"""Three whole supervised updates against PyTorch: every tensor, every loss, whatever part is trained."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small_step import CHANNELS, as_float64
from small_supervised import CLASSES, batch_number, experiment

from protloc_jax.data.batch import Batch
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import step_function
from protloc_jax.views.multicrop import Views

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="the oracle is written in torch")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "peers"))
from torch_dino import Sizes, Vit  # noqa: E402

BATCH, CROPS, DECAY = 6, 2, 0.6
CASES = [("bce", "all"), ("cross_entropy", "last_n"), ("focal", "head")]


def by_torch_name(tree):
    """Our tree under the peer's names and layouts."""
    out, b = {}, tree["backbone"]
    out["0.stem.weight"], out["0.stem.bias"] = b["stem"]["kernel"].transpose(3, 2, 0, 1), b["stem"]["bias"]
    out["0.cls"], out["0.pos"] = b["cls"], b["pos"]
    out["0.norm.weight"], out["0.norm.bias"] = b["norm"]["scale"], b["norm"]["bias"]
    for i in range(len(b["blocks"]["norm1"]["scale"])):
        block = jax.tree.map(lambda x, i=i: x[i], b["blocks"])
        for norm in ("norm1", "norm2"):
            out[f"0.blocks.{i}.{norm}.weight"] = block[norm]["scale"]
            out[f"0.blocks.{i}.{norm}.bias"] = block[norm]["bias"]
        for part, layer in (("attn", "qkv"), ("attn", "proj"), ("mlp", "fc1"), ("mlp", "fc2")):
            out[f"0.blocks.{i}.{layer}.weight"] = block[part][layer]["kernel"].T
            out[f"0.blocks.{i}.{layer}.bias"] = block[part][layer]["bias"]
    for i, layer in enumerate(("mlp_0", "mlp_1", "last")):
        out[f"1.{2 * i}.weight"], out[f"1.{2 * i}.bias"] = tree["head"][layer]["kernel"].T, tree["head"][layer]["bias"]
    return {name: torch.tensor(np.asarray(value)) for name, value in out.items()}


def factor(name, depth=2):
    """The learning rate's factor of a tensor, for a decay a layer."""
    if name.startswith("1.") or name.startswith("0.norm"):
        return 1.0
    return DECAY ** (depth - int(name.split(".")[2])) if name.startswith("0.blocks") else DECAY ** (depth + 1)


def trained(name, train):
    return name.startswith("1.") or train == "all" or (train == "last_n" and name.startswith(("0.blocks.1", "0.norm")))


def torch_loss(logits, targets, kind):
    """Logits [B, V, L]; written from torch's own losses, and focal from its formula."""
    targets = targets[:, None].expand_as(logits)
    if kind == "cross_entropy":
        share = targets / targets.sum(-1, keepdim=True)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), share.flatten(0, 1), label_smoothing=0.1)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if kind == "bce":
        return bce.mean()
    p = torch.sigmoid(logits)
    right = p * targets + (1 - p) * (1 - targets)
    return (bce * (1 - right) ** 1.5 * (0.3 * targets + 0.7 * (1 - targets))).mean()


class Peer:
    def __init__(self, config, params, train):
        m = config.model
        sizes = Sizes(channels=2, image_size=m.image_size, patch=m.patch, dim=m.dim, depth=m.depth, heads=m.heads)
        sizes = Sizes(**{**vars(sizes), "mlp": 4 * m.dim})
        widths = (m.dim, 24, 12, len(CLASSES))
        layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        head = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
        self.net = torch.nn.Sequential(Vit(sizes), head).double()
        self.net.load_state_dict(by_torch_name(params), strict=True)
        self.named = dict(self.net.named_parameters())
        for name, p in self.named.items():
            p.requires_grad_(trained(name, train))
        self.optimiser = torch.optim.AdamW(
            [{"params": [p], "name": name, "decayed": p.ndim > 1} for name, p in self.named.items() if p.requires_grad]
        )

    def step(self, crops, targets, kind, *, lr, weight_decay, clip):
        images = torch.tensor(np.moveaxis(crops, -1, 2).copy())
        logits = self.net(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        loss = torch_loss(logits, torch.tensor(targets).double(), kind)
        self.optimiser.zero_grad()
        loss.backward()
        for group in self.optimiser.param_groups:
            group["lr"] = lr * factor(group["name"])
            group["weight_decay"] = weight_decay if group["decayed"] else 0.0
            (p,) = group["params"]
            p.grad *= min(1.0, clip / (float(p.grad.norm()) + 1e-6))
        self.optimiser.step()
        return loss.item()


@pytest.mark.parametrize(("kind", "train"), CASES)
def test_three_updates_in_float64_are_equal_to_1e_8(kind, train):
    more = {"label_smoothing": 0.1} if kind == "cross_entropy" else {}
    config = experiment(
        model={"drop_path": 0.0},
        optim={"lr": 5e-3, "layer_decay": DECAY, "clip": 0.05},
        **{"loss": kind, "train": train, "last_n": int(train == "last_n"), "dropout": 0.0, **more},
        **({"focal_gamma": 1.5, "focal_alpha": 0.3} if kind == "focal" else {}),
    )
    with jax.enable_x64(True):
        schedules, method = Schedules(config, 4), Supervised(config, CHANNELS)
        state = as_float64(jax.jit(lambda: init_state(config, CHANNELS, jax.random.key(3)))())
        state = state._replace(step=state.step + 1)  # the learning rate of step 0 is 0
        begin = by_torch_name(jax.device_get(state.params))
        step = jax.jit(step_function(config, method, schedules, lambda batch, *_: batch.image))
        peer = Peer(config, jax.device_get(state.params), train)
        for number in range(1, 4):
            rng = np.random.default_rng(number)
            crops = rng.standard_normal((BATCH, CROPS, 32, 32, 2))
            labels = batch_number(number, BATCH).labels
            views = Views(crops, np.zeros((BATCH, 0, 16, 16, 2)))
            state, metrics = step(state, Batch(views, np.zeros((BATCH, 2), np.int32), labels=labels))
            scalars = {name: float(v) for name, v in schedules(number).items() if name in ("lr", "weight_decay")}
            loss = peer.step(crops, labels, kind, clip=config.optim.clip, **scalars)
            assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-10)
            for name, ours in by_torch_name(jax.device_get(state.params)).items():
                theirs = peer.named[name].detach()
                assert (ours - theirs).abs().max() < 1e-8 * theirs.abs().max() + 1e-15, (name, number)
        for name, ours in by_torch_name(jax.device_get(state.params)).items():
            assert torch.equal(ours, begin[name]) != trained(name, train), name


def test_gradients_through_the_vit_are_equal():
    """Of every tensor, before clipping and Adam."""
    config = experiment(model={"drop_path": 0.0}, dropout=0.0)
    with jax.enable_x64(True):
        method = Supervised(config, CHANNELS)
        params = as_float64(jax.jit(lambda: init_state(config, CHANNELS, jax.random.key(1)))()).params
        crops = np.random.default_rng(0).standard_normal((BATCH, 1, 32, 32, 2))
        labels = batch_number(0, BATCH).labels
        keys = jax.random.split(jax.random.key(0), BATCH)

        def objective(params):
            views = Views(crops, np.zeros((BATCH, 0, 16, 16, 2)))
            batch = Batch(None, None, labels=labels)
            return method.loss(params, {}, {}, views, batch=batch, keys=keys, scalars={}).loss

        grads = by_torch_name(jax.device_get(jax.jit(jax.grad(objective))(params)))
    peer = Peer(config, jax.device_get(params), "all")
    logits = peer.net(torch.tensor(np.moveaxis(crops[:, 0], -1, 1).copy()))
    torch_loss(logits[:, None], torch.tensor(labels).double(), "bce").backward()
    for name, p in peer.named.items():
        assert p.grad.abs().max() > 0
        assert (grads[name] - p.grad).abs().max() < 1e-10 * p.grad.abs().max() + 1e-17, name
