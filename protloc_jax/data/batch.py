"""What the loader hands to the training step."""

from __future__ import annotations

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """One host's contiguous slice of a global batch (NumPy), or the whole of it as global arrays.

    The example axis leads in every field. Absent fields are None, so that the tree's structure is fixed for a run.

    image      [B, H, W, C] uint8 or uint16, channels last
    example    [B, 2] int32: (epoch, offset within the epoch), the address of every random draw
    labels     [B, L] float32 multi-hot, or None
    group      [B, G] int32 ids of the group columns, or None
    partner    [B, H, W, C], another image of the same group, or None
    donor      [B, H, W, C], any other image, whose background the cell may get, or None
    mask       [B, H, W] uint8 (1 = the cell, 2 = others where records tell them apart), or None
    cell_line  [B, d] float32, the vector of each image's cell line (the vector itself, so that a line never trained on
               is just another vector), or None
    substituted [B] bool: a damaged record was replaced in this example, or None where damage stops the run
    """

    image: Any
    example: Any
    labels: Any = None
    group: Any = None
    partner: Any = None
    donor: Any = None
    mask: Any = None
    cell_line: Any = None
    substituted: Any = None
