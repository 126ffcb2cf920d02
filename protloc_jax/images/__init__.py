"""Image files to arrays, safely: PNG, JPEG and TIFF, header checked before decoding, 8 and 16 bit kept exactly."""

from protloc_jax.images.assemble import Colour, assemble, assembled_header
from protloc_jax.images.fit import SizePolicy, fit
from protloc_jax.images.header import MAX_PIXELS, Header, ImageError, Projection
from protloc_jax.images.label_image import ColourLabels, read_labels
from protloc_jax.images.read import Image, header, read

__all__ = [
    "MAX_PIXELS",
    "Colour",
    "ColourLabels",
    "Header",
    "Image",
    "ImageError",
    "Projection",
    "SizePolicy",
    "assemble",
    "assembled_header",
    "fit",
    "header",
    "read",
    "read_labels",
]
