"""`protloc export`: weights for other programs: safetensors for timm, ONNX, StableHLO, with a model card."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "export",
        help="write weights for other programs: safetensors (timm), ONNX, StableHLO, with a model card",
        description="Write a trained backbone for other programs, with a model card and test tensors beside it. ONNX "
        "and StableHLO hold the preprocessing too: they read raw images by channel name. Every file is checked against "
        "the test tensors before the folder appears.",
    )
    parser.add_argument(
        "weights", metavar="WEIGHTS", help="run directory, one of its checkpoints, or weights of another project"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write (appears when it is complete)")
    parser.add_argument(
        "--format",
        action="append",
        required=True,
        metavar="FORMAT",
        dest="formats",
        help="safetensors, onnx or stablehlo; several with commas, or the option again",
    )
    parser.add_argument(
        "--which", choices=("teacher", "params"), default="teacher", help="teacher, or student (params)"
    )
    parser.add_argument("--size", type=int, default=0, metavar="PX", help="side images are brought to (0: as trained)")
    parser.add_argument(
        "--input-size", metavar="H,W", help="size of raw images (default: the side they are brought to)"
    )
    parser.add_argument(
        "--pixels", choices=("uint8", "uint16", "float32"), default="uint8", help="type of raw images (default: uint8)"
    )
    parser.add_argument("--name", default="", help="name in the model card (default: that of the folder)")
    parser.add_argument("--licence", default="", help="licence of the weights, e.g. cc-by-4.0 (default: as recorded)")
    parser.add_argument(
        "--commercial", choices=("yes", "no", "unknown"), default="unknown", help="whether commercial use is allowed"
    )
    parser.add_argument("--metrics", metavar="FILE", help="scores written by `protloc evaluate --out FILE`")
    parser.add_argument("--seed", type=int, default=0, help="seed of the test images")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that is not empty")


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit status."""
    from protloc_jax.convert.about import About
    from protloc_jax.convert.export import export
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.load import load

    set_up_compilation_cache()
    size = _size(args.input_size)
    metrics = _metrics(args.metrics)
    encoder = load(args.weights, which=args.which, size=args.size)
    data, source = _origin(args.weights, args.which)
    made = export(
        encoder,
        args.out,
        formats=[name.strip() for text in args.formats for name in text.split(",") if name.strip()],
        about=About(
            name=args.name or Path(args.out).name,
            licence=args.licence,
            commercial=args.commercial,
            data=data,
            source=source,
            metrics=metrics,
        ),
        size=size,
        pixels=args.pixels,
        seed=args.seed,
        overwrite=args.overwrite,
    )
    print(f"weights   {args.weights} ({encoder.channels}), licence {made.facts['licence']}")
    height, width = made.facts["input_size"]
    print(f"images    {height} x {width} pixels, {made.facts['pixels']}, by channel name")
    for check in made.checked:
        shown = "" if check.difference is None else f": largest difference {check.difference:.1e} standard deviations"
        print(f"checked   {check.file}, {check.said}{shown}")
    print(f"wrote     {made.directory}: {', '.join(path.name for path in made.files)}")
    return 0


def _origin(weights: str, which: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(training data, source of converted weights) as recorded; each empty where there is none."""
    from protloc_jax.convert.convert import convert
    from protloc_jax.eval.load import is_foreign
    from protloc_jax.train.checkpoint_files import load_weights

    if is_foreign(weights):
        return {}, convert(weights, which="teacher" if which == "teacher" else "student").source
    _, meta = load_weights(weights, which, warn=lambda _: None)
    source = meta.get("source") or {}
    return {} if source else meta.get("data") or {}, source


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.replace("x", ",").split(",")
    if len(sides) not in (1, 2) or not all(side.strip().isdecimal() for side in sides):
        raise ValueError(f"--input-size {text}: give height and width, for example 512,512.")
    return int(sides[0]), int(sides[-1])


def _metrics(file: str | None) -> dict | None:
    if file is None:
        return None
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"--metrics {file}: no such file.") from None
    except ValueError as error:
        raise ValueError(f"--metrics {file}: not JSON ({error}).") from None
