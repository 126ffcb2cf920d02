"""Which image files make one HPA image: a file a colour, or one file of all colours (yellow in the place of alpha)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protloc_jax import images
from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.naming import stem
from protloc_jax.datasets.problems import Problems
from protloc_jax.datasets.raw_tree import RawTree
from protloc_jax.simulate.raw_proteins import HPA_COLOURS as COLOURS

_COLOUR = re.compile(rf"(?P<name>.+)_(?P<colour>{'|'.join(COLOURS)})")
WHOLE = ""  # stands for all colours in one file


@dataclass
class HpaFiles:
    """Image files by the image they belong to.

    images    path without suffix and colour -> colour (or WHOLE) -> path
    by_name   the last part of that -> those that end in it
    """

    root: str
    images: dict[str, dict[str, str]] = field(default_factory=dict)
    by_name: dict[str, list[str]] = field(default_factory=dict)

    def find(self, text: str) -> tuple[str, str]:
        """(key, "") of the image that a table's text names, or ("", why not).

        The text may be a path below the root or a bare name, with or without suffix or colour.
        """
        plain = stem(text.replace("\\", "/")) if re.search(r"\.[A-Za-z]{3,4}$", text) else text
        for name in dict.fromkeys((plain, _without_colour(plain))):
            if name in self.images:
                return name, ""
            own = self.by_name.get(name.rpartition("/")[2], [])
            if len(own) > 1:
                return "", f"{len(own)} images of this name: {capped(own, 3)}"
            if own:
                return own[0], ""
        return "", "no image"

    def hint(self, text: str) -> str:
        """The nearest name of an image, for a message; slow where there are many."""
        return nearest(stem(text).rpartition("/")[2], list(self.by_name)[:5000])


def hpa_files(tree: RawTree, problems: Problems) -> HpaFiles:
    """Files by image. Two files for one colour of one image are a problem.

    A lone `<name>_blue` that holds four channels is a whole image: some releases keep that ending.
    """
    found = HpaFiles(str(tree.root))
    for path in tree.images:
        match = _COLOUR.fullmatch(stem(path))
        name, colour = (match["name"], match["colour"]) if match else (stem(path), WHOLE)
        own = found.images.setdefault(name, {})
        if colour in own:
            problems.add("two files for one colour", f"{own[colour]} and {path}")
        own[colour] = path
    for name, own in found.images.items():
        if list(own) == ["blue"] and _channels(tree, own["blue"]) == len(COLOURS):
            own[WHOLE] = own.pop("blue")
        if WHOLE in own and len(own) > 1:
            problems.add("one file and a file a colour", f"{name}: {capped(list(own.values()))}")
        found.by_name.setdefault(name.rpartition("/")[2], []).append(name)
    return found


def one_form(rows: Sequence[Mapping[str, str]], problems: Problems) -> bool:
    """True where every image is one file. A mixture cannot be packed at once and is a problem."""
    whole = [WHOLE in own for own in rows]
    if any(whole) and not all(whole):
        odd = whole.index(sum(whole) * 2 < len(whole))
        problems.add(
            "mixed forms",
            f"{sum(whole)} images are one file and {len(whole) - sum(whole)} a file a colour, such as "
            f"{next(iter(rows[odd].values()))}; pack them apart",
        )
    return all(whole)


def _without_colour(name: str) -> str:
    match = _COLOUR.fullmatch(name)
    return match["name"] if match else name


def _channels(tree: RawTree, path: str) -> int:
    try:
        return images.header(tree.root / path).shape[2]
    except (images.ImageError, OSError, ValueError):
        return 0  # the packing will say what is wrong with it
