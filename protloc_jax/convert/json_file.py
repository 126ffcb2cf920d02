"""JSON files beside weights: small, an object, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protloc_jax.convert.stored import WeightsRefused

_LARGEST = 64 * 2**20  # the index of a model of a million tensors is about this long


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; NaN and Infinity, which JSON does not know, come as text.

    Raises WeightsRefused naming file and place where it is not one.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise WeightsRefused(f"{path} has {size:,} bytes; no configuration or index is that long.")
        content = json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=str)
    except OSError as error:
        raise WeightsRefused(f"{path} cannot be read: {error.strerror or error}.") from error
    except WeightsRefused:
        raise
    except (ValueError, RecursionError) as error:
        raise WeightsRefused(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise WeightsRefused(f"{path} has to hold a JSON object, not a {type(content).__name__}.")
    return content
