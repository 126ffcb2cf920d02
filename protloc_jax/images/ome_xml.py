"""The part of OME-XML that is needed: for each image its name, channels and pixel size."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from protloc_jax.images.header import ImageError
from protloc_jax.images.physical_size import in_um, square

MAX_XML_BYTES = 2**26
_MAX_DEPTH = 64


@dataclass
class OmeImage:
    """One <Image> element.

    channel_names  of all channels, or () where not every channel has one
    um_per_pixel   side of a pixel in micrometres; None where it is not stated or not square
    """

    name: str = ""
    channel_names: tuple[str, ...] = ()
    um_per_pixel: float | None = None
    _names: list[str] = field(default_factory=list, repr=False)


def parse_ome_xml(path: Path, text: str) -> list[OmeImage]:
    """The images of an OME-XML text, in order.

    Document types and entities are refused before their content is looked at, so nothing expands and nothing is
    fetched. Raises ImageError naming `path` for those, for text that is no XML, and for absurd sizes and depths.
    """
    if len(text) > MAX_XML_BYTES:
        raise ImageError(f"{path}: {len(text):,} bytes of OME-XML, more than the limit of {MAX_XML_BYTES:,}.")
    found: list[OmeImage] = []
    depth = 0

    def refuse(*_: object) -> int:
        raise ImageError(f"{path}: its OME-XML declares XML entities or a document type; refused.")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ImageError(f"{path}: its OME-XML is nested more than {_MAX_DEPTH} deep; refused.")
        tag = tag.rsplit(":", 1)[-1]
        if tag == "Image":
            found.append(OmeImage(attributes.get("Name", "")))
        elif tag == "Pixels" and found:
            found[-1].um_per_pixel = square(_physical(attributes, "X"), _physical(attributes, "Y"))
        elif tag == "Channel" and found and "ID" in attributes:
            found[-1]._names.append(attributes.get("Name", "").strip())

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", "surrogatepass"), True)
    except (expat.ExpatError, UnicodeError) as error:
        raise ImageError(f"{path}: damaged OME-XML ({error}).") from error
    for image in found:
        image.channel_names = tuple(image._names) if all(image._names) else ()
    return found


def _physical(attributes: dict[str, str], axis: str) -> float | None:
    try:
        value = float(attributes[f"PhysicalSize{axis}"])
    except (KeyError, ValueError):
        return None
    return in_um(value, attributes.get(f"PhysicalSize{axis}Unit", "µm"))  # OME's default unit
