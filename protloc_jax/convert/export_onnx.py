"""A frozen encoder as one ONNX file: raw images of named channels in, features out, all preprocessing inside.

The graph is written operator by operator from the parameters, for ONNX opset 17, and not traced: the general
converter (jax2onnx 0.17) pins a version of Orbax older than the one our checkpoints need, and brings a dozen packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.convert.about import as_text
from protloc_jax.convert.frozen import Frozen
from protloc_jax.convert.onnx_graph import Graph
from protloc_jax.convert.onnx_vit import encoded
from protloc_jax.convert.refusal import ExportRefused
from protloc_jax.views.normalisation import SELF_EPS

OUTPUTS = ("cls", "patches")
UNITS = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
# A protobuf file ends at 2 GiB; above this, weights stand in a file beside it (ONNX "external data").
INSIDE = 1_900_000_000


def write_onnx(frozen: Frozen, path: Path, *, facts: Mapping[str, Any], inside: int = INSIDE) -> list[Path]:
    """Write `path` (.onnx) and, where the weights have more than `inside` bytes, `path`.data; returns the files.

    Inputs are the channels under their own names, [batch, H, W] each; outputs `cls` [batch, D] and `patches`
    [batch, N, D]. `facts` become the model's metadata, values that are not text as JSON.
    Raises ExportRefused where the package onnx is missing or a channel has the name of an output.
    """
    model = onnx_model(frozen, facts=facts)
    import onnx

    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size <= inside:
        onnx.save_model(model, path)
        files = [path]
    else:
        beside = path.with_name(path.name + ".data")
        onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name)
        files = [path, beside]
    onnx.checker.check_model(str(path))
    return files


def onnx_model(frozen: Frozen, *, facts: Mapping[str, Any]) -> Any:
    """The `onnx.ModelProto` of a frozen encoder."""
    frozen.needs_slots("onnx")
    clash = [name for name in frozen.channels.names if name in OUTPUTS or name.startswith("/")]
    if clash:
        raise ExportRefused(
            f"channels {', '.join(clash)}: these names are taken in the ONNX graph; rename the channels."
        )
    g = Graph()
    config, passes = frozen.encoder.config, len(frozen.passes)
    size = frozen.preparation.size
    cls, patches = encoded(g, config, frozen.encoder.params, _prepared(g, frozen), size)
    count, dim = int(np.prod(frozen.grid)), config.shape.dim
    # Passes are stacked along the batch: [P * B, ...] to [B, ..., P * D].
    cls = g.op("Transpose", g.op("Reshape", cls, g.whole(passes, -1, dim)), perm=[1, 0, 2])
    g.op("Reshape", cls, g.whole(0, passes * dim), called="cls")
    patches = g.op("Transpose", g.op("Reshape", patches, g.whole(passes, -1, count, dim)), perm=[1, 2, 0, 3])
    g.op("Reshape", patches, g.whole(0, count, passes * dim), called="patches")
    return g.model(
        dict.fromkeys(frozen.channels.names, (frozen.pixels, ("batch", *frozen.size))),
        {"cls": ("float32", ("batch", passes * dim)), "patches": ("float32", ("batch", count, passes * dim))},
        name="encoder",
        facts=as_text(facts),
    )


def _prepared(g: Graph, frozen: Frozen) -> str:
    """Images [P * B, slots, h, w] as the transformer reads them, of the raw channels."""
    how = frozen.preparation
    names = frozen.channels.names
    x = g.op("Concat", *(g.op("Unsqueeze", name, g.whole(1)) for name in names), axis=1)
    x = g.op("Mul", g.op("Cast", x, to=g.onnx.TensorProto.FLOAT), g.number(1.0 / UNITS[frozen.pixels]))
    if how.resize is not None:
        rows, columns = how.resize
        x = g.op("MatMul", g.constant("resize/rows", rows), x)
        x = g.op("MatMul", x, g.constant("resize/columns", columns.T))
    elif how.size != frozen.size:
        stop = [a + n for a, n in zip(how.start, how.size, strict=True)]
        x = g.op("Slice", x, g.whole(*how.start), g.whole(*stop), g.whole(2, 3))
    if how.clip:
        x = g.op("Clip", x, g.number(0.0), g.number(1.0))
    parts = g.op("Split", x, g.whole(*[1] * len(names)), outputs=len(names), axis=1) if len(names) > 1 else [x]
    planes: dict[str | None, str] = dict(zip(names, parts, strict=True))
    if any(name is None for slots in frozen.passes for name in slots):
        planes[None] = g.op("ConstantOfShape", g.op("Shape", parts[0]))
    stacked = [g.op("Concat", *(planes[name] for name in slots), axis=1) for slots in frozen.passes]
    return _normalised(g, frozen, g.op("Concat", *stacked, axis=0))


def _normalised(g: Graph, frozen: Frozen, x: str) -> str:
    """`views.normalisation.normalise` on images [B, C, h, w]."""
    how = frozen.encoder.prepare.normalisation
    how.check(frozen.encoder.config.channels)
    if how.kind == "none":
        return x
    if how.kind == "dataset":
        mean, gain = (np.asarray(v, np.float32)[:, None, None] for v in (how.mean, [1.0 / s for s in how.std]))
        return g.op("Mul", g.op("Sub", x, g.constant("mean", mean)), g.constant("inverse_std", gain))
    centred = g.op("Sub", x, g.op("ReduceMean", x, axes=[2, 3]))
    std = g.op("Sqrt", g.op("ReduceMean", g.op("Mul", centred, centred), axes=[2, 3]))
    return g.op("Div", centred, g.op("Add", std, g.number(SELF_EPS)))
