"""Image files to arrays, safely: PNG, JPEG, TIFF, OME-Zarr, vendor formats. Headers are checked before decoding."""

from protloc_jax.images.assemble import Colour, assemble, assembled_header
from protloc_jax.images.fit import SizePolicy, fit
from protloc_jax.images.header import (
    MAX_PIXELS,
    VENDOR_MAGIC,
    Header,
    ImageError,
    MissingChunks,
    Projection,
    Reading,
    is_zarr,
    stored_bytes,
)
from protloc_jax.images.label_image import ColourLabels, read_labels
from protloc_jax.images.read import Image, header, read
from protloc_jax.images.vendor import VendorSupportMissing

__all__ = [
    "MAX_PIXELS",
    "VENDOR_MAGIC",
    "Colour",
    "ColourLabels",
    "Header",
    "Image",
    "ImageError",
    "MissingChunks",
    "Projection",
    "Reading",
    "SizePolicy",
    "VendorSupportMissing",
    "assemble",
    "assembled_header",
    "fit",
    "header",
    "is_zarr",
    "read",
    "read_labels",
    "stored_bytes",
]
