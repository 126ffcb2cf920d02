"""A fixed white point: the values from black to it spread over the whole range of the pixels' type."""

from __future__ import annotations

import numpy as np

from protloc_jax import images


def stretched(pixels: np.ndarray, white: int) -> tuple[np.ndarray, int]:
    """(pixels with `white` and above as the largest value of their type, how many lay above `white`).

    In units of [0, 1] the result is min(value, white) / white, rounded to the type's steps. dtype and shape are kept,
    0 stays as it is. Raises ImageError for a white point that the type cannot hold.
    """
    most = int(np.iinfo(pixels.dtype).max)
    if white > most:
        raise images.ImageError(f"white_point={white} lies above the largest value of {pixels.dtype} pixels, {most}.")
    above = int((pixels > white).sum())
    return np.rint(np.minimum(pixels, white) * (most / white)).astype(pixels.dtype), above
