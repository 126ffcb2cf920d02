"""A frozen encoder as a portable StableHLO program through `jax.export`, weights and preprocessing inside.

The input is one dict, channel name -> pixels [B, H, W], so the names stand in the program's own input tree; B is a
symbol, free at every call. The format has no room for other facts: they stand in the export's `encoder.json`.

jax promises that an artefact runs on versions of jax released up to six months after the one that wrote it, and up to
three weeks before (docs.jax.dev, "Exporting and serializing staged-out computations", compatibility guarantees).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from protloc_jax.convert.frozen import Frozen
from protloc_jax.convert.refusal import ExportRefused

PLATFORMS = ("cpu", "cuda", "tpu")
LARGEST = 1_900_000_000  # bytes of weights; the artefact is a flatbuffer, which ends at 2 GiB


def write_stablehlo(frozen: Frozen, path: Path, *, largest: int = LARGEST) -> list[Path]:
    """Write `path` (.jaxexport, the artefact) and the same program as text beside it (.mlir, large constants cut).

    Raises ExportRefused for weights of more than `largest` bytes.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(frozen.encoder.params))
    if size > largest:
        raise ExportRefused(
            f"the weights have {size / 1e9:.1f} GB, and a jax.export artefact ends at 2 GB: "
            "export safetensors or onnx instead."
        )
    (batch,) = jax_export.symbolic_shape("b")
    kind = np.dtype(frozen.pixels)
    images = {name: jax.ShapeDtypeStruct((batch, *frozen.size), kind) for name in frozen.channels.names}
    function = jax.jit(frozen.encode)
    # The artefact's precision is fixed here, on whatever device it runs later: float32 shall mean float32.
    with jax.default_matmul_precision("highest"), _no_source_paths():
        path.write_bytes(jax_export.export(function, platforms=PLATFORMS)(images).serialize())
        readable: Any = function.trace(images).lower(lowering_platforms=PLATFORMS).compiler_ir("stablehlo")
    text = path.with_suffix(".mlir")
    listed = ", ".join(sorted(images))  # the order in which a dict is flattened
    program = readable.operation.get_asm(large_elements_limit=16)
    text.write_text(f"// Images, in the order of the arguments: {listed}. Large constants are cut.\n{program}\n")
    return [path, text]


def read_stablehlo(path: str | Path) -> Any:
    """The program in `path` as a function of {channel name: pixels [B, H, W]} that gives {"cls", "patches"}.

    Raises ValueError where the file is no such artefact.
    """
    artefact = jax_export.deserialize(bytearray(Path(path).read_bytes()))
    return artefact.call


def channels_of(path: str | Path) -> tuple[str, ...]:
    """The channel names in an artefact's own input tree, sorted."""
    artefact = jax_export.deserialize(bytearray(Path(path).read_bytes()))
    (images,), _ = jax.tree.unflatten(artefact.in_tree, artefact.in_avals)
    return tuple(images)


@contextlib.contextmanager
def _no_source_paths() -> Iterator[None]:
    """Without the traceback of every operation, which would name folders of this machine in a file for others."""
    key = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, key)
    jax.config.update(key, 0)
    try:
        yield
    finally:
        jax.config.update(key, before)
