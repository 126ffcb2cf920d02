"""A DINO training step in plain PyTorch that does the same work as ours: the peer of the benchmark, and a test oracle.

Written from the published description (Caron et al. 2021; ViT of Dosovitskiy et al. 2021), with the usual good habits:
fused attention, one forward pass a resolution, the head once over all crops, log-softmax once a view, the fused AdamW,
multi-tensor clipping and moving average. On an accelerator four more, each off by default: a residual stream in half
precision (autocast leaves it in float32), patches by a matrix product instead of a convolution, the loss without laying
out its pairs, and steps that do not wait.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Sizes:
    """Everything that fixes the two networks."""

    channels: int = 4
    image_size: int = 224
    patch: int = 16
    dim: int = 384
    depth: int = 12
    heads: int = 6
    mlp: int = 1536
    out_dim: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    head_layers: int = 3


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, sizes: Sizes, *, fused: bool = True) -> None:
        super().__init__()
        self.heads, self.fused = sizes.heads, fused
        self.norm1 = nn.LayerNorm(sizes.dim, eps=1e-6)
        self.qkv = nn.Linear(sizes.dim, 3 * sizes.dim)
        self.proj = nn.Linear(sizes.dim, sizes.dim)
        self.norm2 = nn.LayerNorm(sizes.dim, eps=1e-6)
        self.fc1 = nn.Linear(sizes.dim, sizes.mlp)
        self.fc2 = nn.Linear(sizes.mlp, sizes.dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:  # as in facebookresearch/dino
            mixed = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(dim=-1) @ v
        x = x + self.proj(mixed.transpose(1, 2).reshape(n, t, d))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    """Images [N, C, H, W] to the class token [N, D].

    `stream` is the dtype of the tokens between blocks; `product` makes patches by a matrix product; `fused` is
    scaled_dot_product_attention, without it the attention weights are written out.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        recompute: bool = False,
        stream: torch.dtype | None = None,
        product: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.sizes, self.recompute, self.stream, self.product = sizes, recompute, stream, product
        grid = sizes.image_size // sizes.patch
        self.stem = nn.Conv2d(sizes.channels, sizes.dim, sizes.patch, sizes.patch)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, sizes.dim))
        self.pos = nn.Parameter(0.02 * torch.randn(1, 1 + grid * grid, sizes.dim))
        self.blocks = nn.ModuleList(Block(sizes, fused=fused) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.dim, eps=1e-6)

    def positions(self, size: int) -> torch.Tensor:
        """The table for square images of `size` pixels: bicubic by a scale factor with 0.1 added to the grid."""
        grid, wanted = self.sizes.image_size // self.sizes.patch, size // self.sizes.patch
        if grid == wanted:
            return self.pos
        table = self.pos[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        factor = (wanted + 0.1) / grid
        table = F.interpolate(table, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat([self.pos[:, :1], table.permute(0, 2, 3, 1).reshape(1, wanted * wanted, -1)], dim=1)

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """Patch tokens [N, h * w, D]."""
        if not self.product:
            return self.stem(images).flatten(2).transpose(1, 2)
        (n, c, height, width), p = images.shape, self.sizes.patch
        cut = images.reshape(n, c, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
        return F.linear(cut.reshape(n, -1, c * p * p), self.stem.weight.flatten(1), self.stem.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions(images.shape[-1])
        x = x if self.stream is None else x.to(self.stream)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.norm(x)[:, 0]


class Head(nn.Module):
    """MLP, L2 normalisation, weight-normalised prototypes with gains fixed at 1."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        widths = [sizes.dim, *[sizes.hidden] * (sizes.head_layers - 1), sizes.bottleneck]
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.last = weight_norm(nn.Linear(sizes.bottleneck, sizes.out_dim, bias=False))
        gain = self.last.parametrizations.weight.original0
        gain.data.fill_(1.0)
        gain.requires_grad = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.mlp):
            x = layer(x if i == 0 else F.gelu(x))
        return self.last(F.normalize(x, dim=-1))


class Network(nn.Module):
    """Backbone and head; crops of one size go through the backbone together, all crops through the head at once."""

    def __init__(self, sizes: Sizes, **of_backbone: Any) -> None:
        super().__init__()
        self.backbone, self.head = Vit(sizes, **of_backbone), Head(sizes)

    def forward(self, crops: list[torch.Tensor]) -> torch.Tensor:
        """Crops [B, V, C, S, S], one tensor a resolution, to logits [B, V of all, K]."""
        features = [self.backbone(c.flatten(0, 1)).unflatten(0, c.shape[:2]) for c in crops]
        return self.head(torch.cat(features, dim=1))


def dino_loss(
    student: torch.Tensor, teacher: torch.Tensor, centre: torch.Tensor, student_temp: float, teacher_temp: float
) -> torch.Tensor:
    """Mean cross-entropy over the pairs of different views; student [B, V, K], teacher [B, Vg, K]."""
    target = F.softmax((teacher - centre) / teacher_temp, dim=-1)
    predicted = F.log_softmax(student / student_temp, dim=-1)
    total, pairs = student.new_zeros(()), 0
    for i in range(target.shape[1]):
        for j in range(predicted.shape[1]):
            if i != j:
                total = total - (target[:, i] * predicted[:, j]).sum(-1).mean()
                pairs += 1
    return total / pairs


def dino_loss_summed(
    student: torch.Tensor, teacher: torch.Tensor, centre: torch.Tensor, student_temp: float, teacher_temp: float
) -> torch.Tensor:
    """`dino_loss` with the sums over views taken before those over prototypes: no pair is laid out."""
    target = F.softmax((teacher - centre) / teacher_temp, dim=-1)
    predicted = F.log_softmax(student / student_temp, dim=-1)
    n_target, n = target.shape[1], predicted.shape[1]
    all_pairs = (target.sum(1) * predicted.sum(1)).sum(-1)
    with_itself = (target * predicted[:, :n_target]).sum((1, 2))
    return (with_itself - all_pairs).mean() / (n_target * (n - 1))


class Training:
    """Student, teacher, centre and optimiser, and the step that moves them all."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        recompute: bool = False,
        clip: float = 3.0,
        centre_momentum: float = 0.9,
        device: str = "cpu",
        stream: torch.dtype | None = None,
        product: bool = False,
        fused: bool = True,
        summed_loss: bool = False,
    ) -> None:
        self.clip, self.centre_momentum = clip, centre_momentum
        self.pairs_loss = dino_loss_summed if summed_loss else dino_loss
        self.student = Network(sizes, recompute=recompute, stream=stream, product=product, fused=fused).to(device)
        self.teacher = Network(sizes, stream=stream, product=product, fused=fused).to(device)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.centre = torch.zeros(sizes.out_dim, device=device)
        self.loss_of = self._loss
        named = [(n, p) for n, p in self.student.named_parameters() if p.requires_grad]
        plain = [p for n, p in named if n.endswith("bias") or p.ndim == 1]
        decayed = [p for n, p in named if not (n.endswith("bias") or p.ndim == 1)]
        self.trained = [p for _, p in named]
        self.last = [p for n, p in named if n.startswith("head.last")]
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed}, {"params": plain, "weight_decay": 0.0}], lr=0.0, fused=True
        )

    def compile(self, *, by_block: bool = False) -> None:
        """Run forward, loss and backward through torch.compile: as one program, or block by block (soon compiled)."""
        if not by_block:
            self.loss_of = torch.compile(self._loss)
            return
        for network in (self.student, self.teacher):
            network.head.compile(dynamic=False)
            for block in network.backbone.blocks:
                block.compile(dynamic=False)
        self.pairs_loss = torch.compile(self.pairs_loss, dynamic=False)

    def _loss(self, crops: list[torch.Tensor], centre: torch.Tensor, student_temp: float, teacher_temp: float):
        with torch.no_grad():
            teacher = self.teacher(crops[:1])
        loss = self.pairs_loss(self.student(crops), teacher, centre, student_temp, teacher_temp)
        return loss, teacher.mean((0, 1))

    def step(
        self,
        crops: list[torch.Tensor],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        student_temp: float,
        teacher_temp: float,
        freeze_last_layer: bool,
        wait: bool = True,
    ) -> torch.Tensor:
        """One update from crops (global first); returns the loss. Raises FloatingPointError when it is not finite.

        Without `wait` nobody looks at the loss, so the host may run ahead of the device.
        """
        decayed, plain = self.optimiser.param_groups
        decayed["lr"], decayed["weight_decay"], plain["lr"] = lr, weight_decay, lr
        loss, mean_logits = self.loss_of(crops, self.centre, student_temp, teacher_temp)
        if wait and not math.isfinite(value := float(loss.detach())):
            raise FloatingPointError(f"loss is {value}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        grads = [p.grad for p in self.trained if p.grad is not None]
        norms = torch._foreach_norm(grads)
        factors = torch.clamp(self.clip / (torch.stack(norms) + 1e-6), max=1.0).unbind()
        torch._foreach_mul_(grads, factors)
        if freeze_last_layer:
            for p in self.last:
                p.grad = None
        self.optimiser.step()
        with torch.no_grad():
            followed, leading = list(self.teacher.parameters()), list(self.student.parameters())
            torch._foreach_mul_(followed, momentum)
            torch._foreach_add_(followed, leading, alpha=1 - momentum)
            self.centre = self.centre * self.centre_momentum + mean_logits * (1 - self.centre_momentum)
        return loss.detach()
