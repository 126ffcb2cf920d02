"""`protloc verify`: are converted weights the model they were? Layer by layer, against stored activations or live."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from protloc_jax.eval.original import Original
    from protloc_jax.model.encoder import Encoder

EPILOG = """\
--against is one of
  FILE.npz       stored activations: cls, tokens, patches, registers, layer_00 ..., pos_embed_RxC, and the images that
                 made them as 'input' (floats, normalised); without 'input', give them by --image
  timm:NAME      timm's model of that name with the same tensors (needs torch and timm)
  hf             the Hugging Face folder that the weights came from (needs torch and transformers)

exit status: 0 they agree, 1 they do not, 2 bad input
"""


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "verify",
        help="hold converted weights against their original, layer by layer",
        description="Compare the activations of weights with stored ones, or with the original package's, and write a "
        "parity report. Weights: a converted checkpoint, a run, or a weight file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="checkpoint, run directory or foreign weight file")
    parser.add_argument("--against", metavar="WHAT", help="FILE.npz, timm:NAME or hf (see below)")
    parser.add_argument("--model", default="", metavar="NAME", help="known model, where a foreign file does not say it")
    parser.add_argument("--layout", default="", metavar="L", help="layout of a foreign file (default: recognised)")
    parser.add_argument(
        "--position", default="", metavar="P", help="position convention of a foreign file, as in convert"
    )
    parser.add_argument("--image", metavar="FILE", help="image to encode, where the .npz has no 'input'")
    parser.add_argument("--region", metavar="Y,X,H,W", help="part of that image, in pixels")
    parser.add_argument("--size", default="", metavar="H,W", help="size of random images (live; default: native)")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help="largest difference over the reference's standard deviation (default: 1e-5 for float32 weights, 1e-2 for "
        "float16, 1e-1 for bfloat16)",
    )
    parser.add_argument("--out", metavar="FILE", help="write the report as JSON")
    parser.add_argument("--write", metavar="FILE", help="store this model's activations as .npz, for later checks")


def run(args: argparse.Namespace) -> int:
    """Compare; returns the exit status."""
    import numpy as np

    from protloc_jax.eval.activations import INPUT, activations, grids_named, read_stored, stored_positions
    from protloc_jax.eval.original import original
    from protloc_jax.eval.parity import TOLERANCE, compare

    if not args.against and not args.write:
        raise ValueError("name the other side: --against FILE.npz, timm:NAME or hf; or --write FILE.npz.")
    live = _live(args.against)
    stored = {} if live or not args.against else read_stored(args.against)
    said = {key: getattr(args, key) for key in ("model", "layout", "position") if getattr(args, key)}
    weights = original(args.weights, **said)
    encoder = weights.encoder
    images = _images(args, encoder, stored)
    ours = activations(encoder.config, encoder.params, images, grids=grids_named(stored))
    if args.write:
        np.savez_compressed(args.write, **{INPUT: images}, **ours)  # type: ignore[arg-type]
        print(f"wrote {args.write}: {', '.join(ours)} of {list(images.shape)} images")
    if not args.against:
        return 0
    if live:
        reference = _peer(live, weights, images)
    else:
        reference = stored_positions({name: array for name, array in stored.items() if name != INPUT})
    precision = max(weights.dtypes, key=lambda name: TOLERANCE.get(name, 0.0))
    report = compare(
        ours,
        reference,
        tolerance=args.tolerance or TOLERANCE[precision],
        facts={
            "weights": str(args.weights),
            "stored in": precision,
            "layout": weights.source.get("layout", "of this project"),
            "sha256": weights.source.get("sha256", encoder.provenance.get("weights_sha256", "")),
            "against": args.against,
            "images": "x".join(map(str, images.shape)),
        },
    )
    print(report.text())
    if args.out:
        Path(args.out).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return 0 if report.holds else 1


def _live(against: str | None) -> tuple[str, str] | None:
    """("timm", model name) or ("hf", ""), None for a file."""
    kind, _, name = (against or "").partition(":")
    if kind == "hf":
        return "hf", name
    if kind == "timm" and not Path(str(against)).exists():
        if not name:
            raise ValueError("--against timm: name timm's model, for example timm:vit_small_patch16_224.")
        return "timm", name
    return None


def _images(args: argparse.Namespace, encoder: Encoder, stored: dict[str, np.ndarray]) -> np.ndarray:
    """The images to encode [B, H, W, C], normalised: stored ones, an image file, or random ones for a live check."""
    import numpy as np

    from protloc_jax.eval.activations import INPUT, channels_last

    channels = encoder.config.channels
    if INPUT in stored:
        return channels_last(stored[INPUT], channels, where=str(args.against))
    if args.image:
        return _image(args.image, args.region, encoder)
    if stored:
        raise ValueError(f"{args.against} has no '{INPUT}'; give the image that made it by --image FILE.")
    try:
        height, width = map(int, args.size.split(",")) if args.size else (encoder.config.image_size,) * 2
    except ValueError:
        raise ValueError(f"--size {args.size}: write height,width in pixels, for example 224,160.") from None
    return np.random.default_rng(0).normal(size=(1, height, width, channels)).astype(np.float32)


def _image(path: str, region: str | None, encoder: Encoder) -> np.ndarray:
    """One image file as [1, H, W, C], grey repeated into every channel, normalised as the weights want it."""
    import dataclasses

    import jax.numpy as jnp
    import numpy as np

    from protloc_jax import images
    from protloc_jax.views.prepare import prepare

    pixels = images.read(path).pixels
    if region:
        try:
            top, left, height, width = map(int, region.split(","))
        except ValueError:
            raise ValueError(f"--region {region}: write Y,X,H,W in pixels.") from None
        if (
            min(top, left) < 0
            or min(height, width) < 1
            or top + height > pixels.shape[0]
            or left + width > pixels.shape[1]
        ):
            raise ValueError(f"--region {region} does not lie inside {path} ({pixels.shape[0]} x {pixels.shape[1]}).")
        pixels = pixels[top : top + height, left : left + width]
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, encoder.config.channels, axis=-1)
    if pixels.shape[-1] != encoder.config.channels:
        raise ValueError(f"{path} has {pixels.shape[-1]} channels, the model {encoder.config.channels}.")
    how = dataclasses.replace(encoder.prepare, resize=0, crop=0)
    return np.asarray(prepare(jnp.asarray(pixels[None]), how))


def _peer(live: tuple[str, str], weights: Original, images: np.ndarray) -> dict[str, np.ndarray]:
    """The activations of the package that the weights come from."""
    from protloc_jax.eval.live_peer import hf_activations, timm_activations

    kind, name = live
    if kind == "hf":
        path = Path(name or weights.source.get("path", weights.path))
        return hf_activations(path if path.is_dir() else path.parent, images)
    return timm_activations(name, weights.tensors("timm"), images, image_size=weights.encoder.config.image_size)
