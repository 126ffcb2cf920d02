"""Configuration of the vision transformer: sizes by name, and the switches that change arithmetic or execution."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from protloc_jax.channels import parse
from protloc_jax.config import check_literals, opt

Position = Literal["dino", "dinov2_registers", "timm", "hf", "jax_zoom", "none"]


class VitShape(NamedTuple):
    """Resolved widths of a transformer: token width, blocks, attention heads, hidden width of the MLP."""

    dim: int
    depth: int
    heads: int
    hidden: int  # numbers that enter the MLP's second map; a gated MLP makes twice as many


# DeiT / DINO naming (facebookresearch/dino, vision_transformer.py); L and H are ViT-L and ViT-H of the original paper,
# table 1; g is DINOv2's ViT-g (`vit_giant2`), wider and with more heads than that of Zhai et al. 2022.
SIZES: dict[str, VitShape] = {
    "Ti": VitShape(192, 12, 3, 768),
    "S": VitShape(384, 12, 6, 1536),
    "B": VitShape(768, 12, 12, 3072),
    "L": VitShape(1024, 24, 16, 4096),
    "H": VitShape(1280, 32, 16, 5120),
    "g": VitShape(1536, 40, 24, 6144),
}


@dataclasses.dataclass(frozen=True)
class VitConfig:
    """A vision transformer with an N-channel stem; 0 in `dim`, `depth`, `heads`, `mlp_ratio` means "from `size`"."""

    size: Literal["Ti", "S", "B", "L", "H", "g", "custom"] = opt(
        "S", "Ti, S, B, L, H, g (DINOv2's giant has mlp=swiglu too), or custom (then set dim, depth, heads)"
    )
    patch: int = opt(16, "patch side in pixels")
    channels: int = opt(3, "number of input channels (model slots)")
    stem: Literal["joint", "channels"] = opt(
        "joint",
        "joint: a patch of all channels is one token; channels: every channel gives tokens of its own, and one model "
        "reads images of any channels of its vocabulary (ChannelViT, Bao et al. 2024)",
    )
    channel_names: tuple[str, ...] = opt(
        (),
        "vocabulary of stem=channels, names or name:role; other stands for what has no row of its own; empty = the "
        "channels of the records",
    )
    channel_sampling: Literal["none", "hierarchical", "hierarchical_protein"] = opt(
        "none",
        "channels that a training view shows with stem=channels: all, or a random number of them drawn at random (with "
        "the protein always among them)",
    )
    image_size: int = opt(224, "side in pixels of the square image that the position table is made for")
    dim: int = opt(0, "token width; 0 = from size")
    depth: int = opt(0, "number of blocks; 0 = from size")
    heads: int = opt(0, "attention heads; 0 = from size")
    mlp_ratio: float = opt(
        0.0, "hidden width of the MLP over token width; 0 = 4, or with swiglu two thirds of that, rounded up to eights"
    )
    registers: int = opt(0, "extra tokens without an image patch (Darcet et al. 2023)")
    cell_tokens: int = opt(
        0, "tokens made of the vector of the image's cell line (data.cell_vectors), after the class token; 0 = none"
    )
    cell_dim: int = opt(0, "width of the cell-line vectors; filled in from data.cell_vectors, 0 without cell tokens")
    class_token: bool = opt(True, "a class token; without one the image's vector is the mean patch token")
    position_prefix: Literal["cls", "none", "all"] = opt(
        "cls",
        "tokens before the patches that the position table has rows for: class token, none, or all (cell tokens and "
        "registers too)",
    )
    mlp: Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"] = opt(
        "gelu", "non-linearity of the MLP: exact, tanh or sigmoid form of GELU, or a SiLU gate (SwiGLU)"
    )
    pre_norm: bool = opt(False, "layer norm of all tokens before the first block (CLIP)")
    stem_bias: bool = opt(True, "bias in the patch projection")
    final_norm: Literal["tokens", "pooled", "none"] = opt(
        "tokens", "last layer norm: on every token, on the mean patch token alone (timm's fc_norm), or none"
    )
    layerscale: float = opt(0.0, "initial LayerScale gain; 0 = no LayerScale")
    drop_path: float = opt(0.0, "stochastic depth of the last block, rising linearly from 0 at the first")
    qkv_bias: bool = opt(True, "bias in the fused query-key-value projection")
    norm_eps: float = opt(1e-6, "epsilon of every layer norm (DINO and timm ViT: 1e-6)")
    position: Literal["dino", "dinov2_registers", "timm", "hf", "jax_zoom", "none"] = opt(
        "dino", "how the position table is resized to other grids"
    )
    init: Literal["trunc_normal", "fan_in"] = opt(
        "trunc_normal", "initial linear maps: normal 0.02, as published; or 1/sqrt(inputs), better for small widths"
    )
    dtype: Literal["float32", "bfloat16"] = opt("float32", "arithmetic of matmuls; norms and softmax stay >= float32")
    attention: Literal["xla", "cudnn"] = opt(
        "xla", "xla: anywhere; cudnn: NVIDIA's fused kernel, bfloat16 on NVIDIA GPUs only, less memory traffic"
    )
    scan: bool = opt(True, "loop over blocks in the compiled program (small, fast to compile) instead of unrolling")
    packed: bool = opt(
        True, "crops of several sizes go through the blocks side by side, in one product a layer; false = size by size"
    )
    remat: Literal["none", "block", "selective"] = opt(
        "none", "recompute in the backward pass to save memory: whole blocks, or all but the costly products of each"
    )

    def __post_init__(self) -> None:
        check_literals(self)
        problems = []
        for name in ("patch", "channels", "image_size"):
            if getattr(self, name) < 1:
                problems.append(f"{name}={getattr(self, name)}: must be at least 1.")
        for name in ("dim", "depth", "heads", "mlp_ratio", "registers", "layerscale", "cell_tokens", "cell_dim"):
            if getattr(self, name) < 0:
                problems.append(f"{name}={getattr(self, name)}: must not be negative.")
        if self.size == "custom":
            missing = [name for name in ("dim", "depth", "heads") if getattr(self, name) == 0]
            if missing:
                problems.append(f"size='custom' needs {', '.join(missing)}.")
        if not 0.0 <= self.drop_path < 1.0:
            problems.append(f"drop_path={self.drop_path}: must be in [0, 1).")
        if self.attention == "cudnn" and self.dtype != "bfloat16":
            problems.append(f"attention='cudnn' needs dtype='bfloat16', this is '{self.dtype}'.")
        problems += self._channel_problems()
        if self.norm_eps <= 0:
            problems.append(f"norm_eps={self.norm_eps}: must be above 0.")
        if self.position_prefix == "all" and not self.prefix:
            problems.append("position_prefix='all': there is no token before the patches.")
        if self.patch > self.image_size >= 1:
            problems.append(f"patch={self.patch} is larger than image_size={self.image_size}.")
        if not problems:
            dim, _, heads, hidden = self.shape
            if dim % heads:
                problems.append(f"dim={dim} is not divisible by heads={heads}.")
            if hidden < 1:
                problems.append(f"mlp_ratio={self.mlp_ratio} gives an empty MLP at dim={dim}.")
        if problems:
            raise ValueError("\n  ".join(problems))

    @property
    def shape(self) -> VitShape:
        """Token width, blocks, heads and MLP width after filling zeros from `size`."""
        base = SIZES.get(self.size, VitShape(0, 0, 0, 0))
        dim = self.dim or base.dim
        hidden = round(dim * (self.mlp_ratio or 4.0))
        if self.mlp == "swiglu" and not self.mlp_ratio:
            # As many operations as without the gate: DINOv2's SwiGLUFFNFused, a multiple of 8.
            hidden = -(-int(hidden * 2 / 3) // 8) * 8
        return VitShape(dim, self.depth or base.depth, self.heads or base.heads, hidden)

    @property
    def table_grid(self) -> int:
        """Side, in patches, of the square grid that the stored position table covers."""
        return self.image_size // self.patch

    @property
    def kernel_channels(self) -> int:
        """Input channels of the patch projection's kernel."""
        return self.channels if self.stem == "joint" else 1

    @property
    def prefix(self) -> int:
        """Tokens before the patches: the class token, the cell tokens and the registers, in that order."""
        return self.class_token + self.cell_tokens + self.registers

    @property
    def positioned(self) -> int:
        """How many of the tokens before the patches have a row in the position table."""
        return {"none": 0, "cls": int(self.class_token), "all": self.prefix}[self.position_prefix]

    @property
    def mean_pooled(self) -> bool:
        """Whether the image's vector is the mean patch token and not the class token."""
        return not self.class_token or self.final_norm == "pooled"

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches for an image of `height` x `width` pixels; a remainder is dropped."""
        return height // self.patch, width // self.patch

    def tokens(self, height: int, width: int) -> int:
        """Tokens of an image of `height` x `width` pixels with `channels` channels."""
        rows, columns = self.grid(height, width)
        return self.prefix + rows * columns * (self.channels if self.stem == "channels" else 1)

    def _channel_problems(self) -> list[str]:
        """What is wrong with the keys that stem=channels has for itself."""
        problems = []
        if self.stem == "joint":
            names = ", ".join(self.channel_names)
            if self.channel_names:
                problems.append(f"channel_names={names}: stem='joint' has slots and no vocabulary; leave it empty.")
            if self.channel_sampling != "none":
                problems.append(f"channel_sampling='{self.channel_sampling}': needs stem='channels'.")
        else:
            try:
                parse(self.channel_names)
            except ValueError as error:
                problems.append(f"channel_names: {error}")
        if self.channel_sampling != "none" and self.attention == "cudnn":
            problems.append(
                f"channel_sampling='{self.channel_sampling}' hides tokens, which attention='cudnn' cannot; use 'xla'."
            )
        return problems
