"""The same weights in the package they come from, run on the same images: the other side of a live parity check.

Imports PyTorch and timm or transformers when called, and only then. The tensors come from the weight file as it is, not
from our own tree, so that a mistake in a conversion rule cannot cancel itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PEERS = ("timm", "hf")


class PeerMissing(ValueError):
    """The package that a live check needs is not installed, or cannot be loaded."""


def timm_activations(
    name: str,
    tensors: Mapping[str, np.ndarray],
    images: np.ndarray,
    *,
    image_size: int,
) -> dict[str, np.ndarray]:
    """Activations of timm's model `name` with `tensors` (its own names) on images [B, H, W, C], named as ours.

    image_size  side in pixels that the tensors' position table is made for
    Raises PeerMissing, or ValueError naming the keys that timm's model lacks or has beside these.
    """
    torch, timm = _package("torch"), _package("timm")
    try:
        model = timm.create_model(
            name, num_classes=0, in_chans=images.shape[-1], img_size=image_size, dynamic_img_size=True
        ).eval()
    except Exception as error:  # timm raises RuntimeError, TypeError and others for names and options it does not know
        raise ValueError(f"timm cannot make '{name}' ({error}).") from error
    state = {key: torch.from_numpy(np.array(value, np.float32)) for key, value in tensors.items()}
    try:
        model.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    except RuntimeError as error:  # names every missing, extra and mis-shaped key
        raise ValueError(f"timm's '{name}' is another model. {error}") from error
    blocks: list[Any] = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: blocks.append(output))
    with torch.no_grad():
        tokens = model.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        vector = model.forward_head(tokens, pre_logits=True)
        layers = [model.norm(block) for block in blocks]
    mean_pooled = model.global_pool == "avg"
    after = (lambda block: model.fc_norm(block[:, model.num_prefix_tokens :].mean(1))) if mean_pooled else None
    return _named(tokens, vector, layers, model.num_prefix_tokens, 0 if model.cls_token is None else 1, after)


def hf_activations(folder: str | Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Activations of the Hugging Face model in `folder` (config.json and safetensors) on images [B, H, W, C].

    Nothing is fetched, and no pickle is read. Raises PeerMissing, or ValueError with what transformers says.
    """
    torch, transformers = _package("torch"), _package("transformers")
    try:
        model = transformers.AutoModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:  # many types, all with a readable text
        raise ValueError(f"transformers cannot load {folder} ({error}).") from error
    model = model.eval().float()
    further = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}
    with torch.no_grad():
        out = model(
            pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), output_hidden_states=True, **further
        )
        layers = [model.layernorm(hidden) for hidden in out.hidden_states[1:]]
    prefix = 1 + getattr(model.config, "num_register_tokens", 0)
    return _named(out.last_hidden_state, out.last_hidden_state[:, 0], layers, prefix, 1, None)


def _named(
    tokens: Any, vector: Any, layers: list[Any], prefix: int, class_tokens: int, after: Callable[[Any], Any] | None
) -> dict[str, np.ndarray]:
    """Torch tensors [B, T, D] as the arrays of `activations.activations`."""
    made = {"cls": vector.numpy(), "patches": tokens[:, prefix:].numpy()}
    if prefix > class_tokens:
        made["registers"] = tokens[:, class_tokens:prefix].numpy()
    if after is None and class_tokens:
        made["tokens"] = tokens.numpy()
    for number, layer in enumerate(layers):
        first = after(layer) if after is not None else layer[:, 0] if class_tokens else layer[:, prefix:].mean(1)
        parts = [first[:, None].detach().numpy(), layer[:, prefix:].numpy()]
        made[f"layer_{number:02d}"] = np.concatenate(parts, axis=1)
    return made


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a torchvision that does not fit its torch raises RuntimeError
        raise PeerMissing(
            f"a live check needs the package {name}, which cannot be loaded here ({error}). Without it, compare with "
            "stored activations: --against FILE.npz."
        ) from error
