"""`protloc convert`: weights of another project as a checkpoint of this one."""

from __future__ import annotations

import argparse
from typing import Any

# Option -> field of `convert.Options`, in the order of the help.
FACTS = {
    "model": ("NAME", "known model, for example vit_base_patch16_224.dino, dinov2_vits14, dino4cells_hpa_fov"),
    "layout": ("L", "layout of the tensors' names (default: recognised)"),
    "mlp": ("M", "gelu, gelu_tanh, quick_gelu or swiglu"),
    "position": ("P", "how the position table is resized: dino, dinov2_registers, timm, hf, jax_zoom or none"),
    "position_prefix": ("P", "tokens with a row in the position table: cls, none or all"),
    "final_norm": ("N", "tokens, pooled or none"),
    "normalise": ("K", "imagenet, half, clip, none or self"),
    "channels": ("C", "channels of the weights in order, name or name:role, for example nucleus,gfp:protein"),
    "to_channels": ("C", "channels of your images, when the stem shall be adapted to them"),
    "stem": ("HOW", "how the stem is adapted: repeat, mean, zero, names or map"),
}
NUMBERS = {
    "heads": (int, "attention heads"),
    "norm_eps": (float, "epsilon of the layer norms"),
    "image_size": (int, "side in pixels that the position table is made for"),
}


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "convert",
        help="weights of another project as a checkpoint of this one",
        description="Read weights of timm, facebookresearch/dino and dinov2, DINO4Cells, Hugging Face or big_vision, "
        "and write them as a checkpoint that `protloc embed` and `protloc pretrain` take. Nothing is guessed: what the "
        "tensors do not show comes from --model, from a config beside the file, or from the options. SRC may also be "
        "a run or checkpoint of this project: then its stem is adapted (--to-channels, --stem).",
    )
    parser.add_argument(
        "file",
        metavar="SRC",
        help="a file (.safetensors .pth .bin .npz), a folder, or hf://org/name; SRC@sha256:DIGEST pins it",
    )
    parser.add_argument("--out", metavar="DIR", help="directory that is written")
    for name, (metavar, text) in FACTS.items():
        parser.add_argument(_option(name), default="", metavar=metavar, help=text)
    for name, (kind, text) in NUMBERS.items():
        parser.add_argument(_option(name), type=kind, default=0, metavar="N", help=text)
    parser.add_argument(
        "--map", action="append", default=[], metavar="A=B", help="with --stem map: your channel A reads theirs B"
    )
    parser.add_argument(
        "--which", choices=("teacher", "student"), default="teacher", help="set of a whole training checkpoint"
    )
    parser.add_argument("--um-per-pixel", type=float, metavar="X", help="pixel size of the images trained on, if known")
    parser.add_argument("--dry-run", action="store_true", help="read, check and print, write nothing")


def run(args: argparse.Namespace) -> int:
    """Convert; returns the exit status."""
    import time

    from protloc_jax.convert.convert import convert
    from protloc_jax.convert.save import save
    from protloc_jax.eval.load import is_foreign
    from protloc_jax.train.pinned import without_pin

    if not args.out and not args.dry_run:
        raise ValueError("--out DIR is needed (or --dry-run).")
    if not is_foreign(args.file) and without_pin(args.file).is_dir():
        return _fit(args)
    begun = time.monotonic()
    options: dict[str, Any] = {name: getattr(args, name) for name in (*FACTS, *NUMBERS)}
    converted = convert(args.file, which=args.which, stem_map=_pairs(args.map), **options)
    _print(converted)
    if not args.dry_run:
        where = save(converted, args.out, um_per_pixel=args.um_per_pixel)
        print(f"wrote         {where}")
    print(f"seconds       {time.monotonic() - begun:.1f}")
    return 0


def _fit(args: argparse.Namespace) -> int:
    """A checkpoint of this project with its stem adapted to other channels."""
    from protloc_jax.channels import parse
    from protloc_jax.convert.own_weights import fit_to_channels

    given = [_option(name) for name in (*FACTS, *NUMBERS) if getattr(args, name)]
    strange = [option for option in given if option not in ("--to-channels", "--stem")]
    if strange or not (args.to_channels and args.stem and args.out):
        raise ValueError(
            f"{args.file} is a checkpoint of this project: what can be changed is its stem, by --to-channels, --stem "
            f"and --out{'; it knows the rest: ' + ', '.join(strange) if strange else ''}."
        )
    where, record = fit_to_channels(args.file, args.out, parse(args.to_channels), args.stem, mapping=_pairs(args.map))
    print(f"stem          {record['channels']} -> {record['to']} by '{record['how']}'")
    print(f"wrote         {where}")
    return 0


def _print(converted) -> None:
    source, config = converted.source, converted.config
    dim, depth, heads, hidden = config.shape
    named = {"dim": dim, "depth": depth, "heads": heads, "hidden": hidden}
    values = {name: named.get(name, getattr(config, name, None)) for name in source["origins"]}
    values["layerscale"] = bool(config.layerscale)
    values["normalisation"] = source["preprocessing"]["colour"]
    prepare = converted.prepare
    sized = f"shorter side {prepare.resize}, centre {prepare.crop}" if prepare.crop else "native size"
    print(f"source        {source['path']} ({source['kind']})")
    print(f"sha256        {source['sha256']}")
    print(f"layout        {source['layout']}" + (f", set '{source['set']}'" if source["set"] else ""))
    if source["model"]:
        print(f"model         {source['model']} (licence {source['licence']}, commercial: {source['commercial_use']})")
    print(f"architecture  {depth} blocks of {dim} ({heads} heads, MLP {hidden}), patch {config.patch}")
    for origin in dict.fromkeys(source["origins"].values()):
        facts = [f"{name}={values[name]}" for name, o in source["origins"].items() if o == origin]
        print(f"  by {origin + ':':<9} {', '.join(facts)}")
    print(f"channels      {converted.channels}")
    if "how" in source["stem"]:
        print(f"stem          {source['stem']['channels']} -> {source['stem']['to']} by '{source['stem']['how']}'")
    print(f"preparation   {sized}, {prepare.interpolation}, {prepare.normalisation.kind} normalisation")
    if source["head"]:
        print(f"head          DINO, {source['head']['out_dim']} prototypes")
    print(f"items         {', '.join(converted.trees)}" + (", extras" if converted.extras else ""))
    for note in converted.notes:
        print(f"note          {note}")


def _pairs(texts: list[str]) -> dict[str, str]:
    bad = [text for text in texts if text.count("=") != 1]
    if bad:
        raise ValueError(f"--map {', '.join(bad)}: write A=B, your channel A reads theirs B.")
    return dict(text.split("=") for text in texts)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
