"""Attention over whole images by every pass of an encoder: per head, their mean, and rolled out over all blocks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.eval.attention_maps import seen
from protloc_jax.model.encoder import Encoder

_CELLS = 2**27  # attention weights of one batch and block, 512 MB in float32
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FieldAttention:
    """Attention of the class token to the patches of N images.

    ids         [N] names of the images
    passes      what each map is of: a pass of the channel plan ("dna"; "dna+actin" where it reads both), or, of a model
                with tokens of every channel, the tokens of one channel in a pass
    reads       [passes] the channels that each reads
    maps        [N, passes, heads, h, w] float32, as the model gave them: each sums to less than 1
    rollout     [N, passes, h, w] float32, or None
    patch       side of a patch in pixels of the prepared image
    box         rows and columns of the image that the maps cover, (top, bottom, left, right) in its own pixels
    provenance  what the weights are
    """

    ids: tuple[str, ...]
    passes: tuple[str, ...]
    reads: tuple[tuple[str, ...], ...]
    maps: np.ndarray
    rollout: np.ndarray | None
    patch: int
    box: tuple[int, int, int, int]
    provenance: dict[str, Any]

    @property
    def mean(self) -> np.ndarray:
        """[N, passes, h, w], the mean over heads."""
        return self.maps.mean(axis=2)

    @property
    def part(self) -> tuple[slice, slice]:
        """The box as rows and columns of an image [H, W]."""
        top, bottom, left, right = self.box
        return slice(top, bottom), slice(left, right)

    def named(self) -> dict[str, np.ndarray]:
        """Every kind of map [N, passes, h, w] by name: head 1, head 2, ..., mean, and rollout where there is one."""
        kinds = {f"head {k + 1}": self.maps[:, :, k] for k in range(self.maps.shape[2])}
        kinds["mean"] = self.mean
        return kinds if self.rollout is None else {**kinds, "rollout": self.rollout}

    def save(self, path: str | Path) -> Path:
        """Write a `.npz` of these arrays, whole or not at all; `read` gives them back. No pickles inside."""
        path = Path(path)
        arrays: dict[str, Any] = {
            "ids": np.asarray(self.ids),
            "passes": np.asarray(self.passes),
            "maps": self.maps.astype(np.float32),
            "patch": np.asarray(self.patch),
            "cut": np.asarray(self.box),
            "about": np.asarray(json.dumps({"reads": self.reads, "provenance": self.provenance}, default=str)),
        }
        if self.rollout is not None:
            arrays["rollout"] = self.rollout.astype(np.float32)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(temporary, path)
        return path


def read(path: str | Path) -> FieldAttention:
    """The attention that `FieldAttention.save` wrote. Raises ValueError naming what a file lacks."""
    with np.load(path, allow_pickle=False) as file:
        missing = [name for name in ("ids", "passes", "maps", "patch", "cut", "about") if name not in file]
        if missing:
            raise ValueError(f"{path}: no attention maps of this project; {', '.join(missing)} missing.")
        about = json.loads(str(file["about"]))
        return FieldAttention(
            ids=tuple(map(str, file["ids"])),
            passes=tuple(map(str, file["passes"])),
            reads=tuple(tuple(names) for names in about["reads"]),
            maps=file["maps"],
            rollout=file.get("rollout"),
            patch=int(file["patch"]),
            box=tuple(map(int, file["cut"])),  # type: ignore[arg-type]
            provenance=about["provenance"],
        )


def field_attention(
    encoder: Encoder,
    images: np.ndarray,
    ids: Sequence[str],
    *,
    cell_lines: np.ndarray | None = None,
    rollout: bool = False,
    batch: int = 0,
    progress: Progress | None = None,
) -> FieldAttention:
    """Attention of images [N, H, W, C] (channels as the encoder's) in every pass of its plan.

    An encoder that neither resizes nor crops (`load(..., size="native")`) sees whole images: both sides are cut to a
    multiple of the patch at the bottom and the right, as DINO's visualisation does, before anything else, so that
    per-image normalisation sees the cut image; the position embedding is resized to its grid by the encoder.

    cell_lines  [N, d], vectors of the images' cell lines, for an encoder with cell tokens
    rollout   also the rollout over all blocks, at the price of a second forward pass
    batch     images at a time; 0 = as many as keep one block's attention weights under half a gigabyte
    progress  called with (images done, images in all)
    Raises ValueError for images smaller than a patch, for another number of ids, and as `Encoder.attention` does.
    """
    config = encoder.config
    if len(ids) != len(images) or not len(images):
        raise ValueError(f"{len(images)} images and {len(ids)} ids; expected as many, and at least one.")
    height, width = images.shape[1:3]
    if min(height, width) < config.patch:
        raise ValueError(f"images are {height} x {width} pixels, smaller than one patch of {config.patch}.")
    rows, columns = seen((height, width), encoder)
    if not encoder.prepare.resize and not encoder.prepare.crop:
        images = images[:, rows, columns]
    by_channel = config.stem == "channels"
    batch = min(batch or _batch(encoder, images.shape[1:3]), len(images))
    found: dict[str, list[np.ndarray]] = {"maps": [], "rollout": []}
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        # A short last batch is filled up, or it would be compiled for itself.
        full = np.concatenate([some, np.repeat(some[-1:], batch - len(some), axis=0)])
        lines = (
            None if cell_lines is None else np.resize(cell_lines[start : start + batch], (batch, cell_lines.shape[1]))
        )
        # by_channel maps are [B, P, heads, C, h, w]; every channel's become a pass of their own
        maps = encoder.attention(full, by_channel=by_channel, cell_lines=lines)[: len(some)]
        found["maps"].append(_passes_first(maps) if by_channel else maps)
        if rollout:
            flow = encoder.rollout(full, by_channel=by_channel, cell_lines=lines)[: len(some)]
            found["rollout"].append(flow.reshape(len(flow), -1, *flow.shape[-2:]))
        if progress is not None:
            progress(start + len(some), len(images))
    reads = _reads(encoder)
    return FieldAttention(
        ids=tuple(map(str, ids)),
        passes=_pass_names(reads),
        reads=reads,
        maps=np.concatenate(found["maps"]).astype(np.float32),
        rollout=np.concatenate(found["rollout"]).astype(np.float32) if rollout else None,
        patch=config.patch,
        box=(rows.start, rows.stop, columns.start, columns.stop),
        provenance=dict(encoder.provenance),
    )


def _passes_first(maps: np.ndarray) -> np.ndarray:
    """[B, P, heads, C, h, w] as [B, P * C, heads, h, w]."""
    moved = np.moveaxis(maps, 3, 2)
    return moved.reshape(len(maps), -1, *moved.shape[3:])


def _batch(encoder: Encoder, shape: tuple[int, ...]) -> int:
    """Images whose attention weights in one block stay within `_CELLS`."""
    how, config = encoder.prepare, encoder.config
    height, width = (how.crop or round(side * (how.resize / min(shape) if how.resize else 1)) for side in shape)
    channels = len(encoder.channels) if config.stem == "channels" else 1
    tokens = config.prefix + channels * (height // config.patch) * (width // config.patch)
    return max(1, _CELLS // (config.shape.heads * tokens * tokens))


def _reads(encoder: Encoder) -> tuple[tuple[str, ...], ...]:
    """The channels that each pass reads; of a model with tokens of every channel, one a map."""
    passes = encoder.plan.passes if encoder.plan else (encoder.channels.names,)
    reads = [tuple(dict.fromkeys(name for name in slots if name is not None)) for slots in passes]
    if encoder.config.stem == "channels":
        # Twice the same channel in a pass is two maps.
        reads = [(name,) for slots in passes for name in slots if name is not None]
    return tuple(reads)


def _pass_names(reads: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Names of the passes by what they read; where two read the same, their numbers beside."""
    names = ["+".join(channels) for channels in reads]
    return tuple(f"{name} (pass {k + 1})" if names.count(name) > 1 else name for k, name in enumerate(names))
