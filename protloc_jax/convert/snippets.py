"""Python that uses the files of an export, as the model card shows it; each piece checks itself on the test tensors."""

from __future__ import annotations

from collections.abc import Sequence

from protloc_jax.convert.export_timm import needs_epsilon
from protloc_jax.convert.frozen import Frozen
from protloc_jax.convert.reference_tensors import INPUT, OUTPUT, TOLERANCE

_CHECK = f"""\
want = np.load("{OUTPUT}")["cls"]
assert np.abs(cls - want).max() < {TOLERANCE:g} * want.std()
"""

_ONNX = f"""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("encoder.onnx")
images = dict(np.load("{INPUT}"))  # {{channel: pixels [B, H, W]}}
cls, patches = session.run(["cls", "patches"], images)
{_CHECK}"""

_STABLEHLO = f"""\
from pathlib import Path

import jax
import jax.export
import numpy as np

encode = jax.export.deserialize(bytearray(Path("encoder.jaxexport").read_bytes())).call
images = dict(np.load("{INPUT}"))  # {{channel: pixels [B, H, W]}}
cls = np.asarray(encode(images)["cls"])
{_CHECK}"""

_TIMM = f"""\
import numpy as np
import timm
import torch

model = timm.create_model("local-dir:.", pretrained=True).eval()
EPSILONprepared = np.load("{OUTPUT}")["prepared"]  # [pass, B, slot, h, w]: what the preprocessing above gives
with torch.inference_mode():
    cls = torch.cat([model(torch.from_numpy(x)) for x in prepared], dim=-1).numpy()
{_CHECK}"""


def pieces(frozen: Frozen, formats: Sequence[str]) -> dict[str, str]:
    """Runnable Python by format; run in the folder of the export."""
    epsilon = ""
    if needs_epsilon(frozen.encoder.config):
        epsilon = (
            "for module in model.modules():  # no registered timm model has this epsilon\n"
            "    if isinstance(module, torch.nn.LayerNorm):\n"
            f"        module.eps = {frozen.encoder.config.norm_eps!r}\n"
        )
    made = {"onnx": _ONNX, "stablehlo": _STABLEHLO, "safetensors": _TIMM.replace("EPSILON", epsilon)}
    return {name: made[name] for name in formats}


def section(frozen: Frozen, formats: Sequence[str]) -> str:
    """The card's section: one piece a format."""
    notes = {
        "onnx": "With ONNX Runtime. Inputs carry the channels' names; channels, normalisation and licence stand in the "
        "model's metadata.",
        "stablehlo": "With jax (no other package is needed). jax guarantees that it runs on versions of jax released "
        "up to six months after the one in `encoder.json` (`made_with`), and up to three weeks before it; export anew "
        "from the weights for later ones. `encoder.mlir` is the same program as text. Products are computed in full "
        "float32 on every device.",
        "safetensors": "With PyTorch and timm (replace `local-dir:.` by `hf-hub:ORGANISATION/NAME` once uploaded). "
        "timm reads prepared images, channels first, slots in the order of the channel plan above.",
    }
    parts = []
    for name, code in pieces(frozen, formats).items():
        parts.append(f"### {name}\n\n{notes[name]}\n\n```python\n{code}```")
    return "\n\n".join(parts)
