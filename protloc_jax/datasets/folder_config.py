"""How a folder of images, or a table of their paths, is to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from protloc_jax import channels as channel_sets
from protloc_jax.channels import ChannelSet
from protloc_jax.config import ConfigError, check_literals, nearest, opt
from protloc_jax.data.manifest import CORE_COLUMNS
from protloc_jax.datasets.splitting import check_fractions
from protloc_jax.images import MAX_PIXELS


@dataclass(frozen=True)
class FolderConfig:
    """A `folder` data set: where the images are, what their channels mean, what their labels, groups and splits are.

    Raises ConfigError naming every value that cannot be.
    """

    path: str = opt("", "a folder of images, or a CSV, TSV or Parquet table with their paths")
    channels: str = opt("", "the channels in the files' order, name or name:role, for example 'nucleus,gfp:protein'")
    name: str = opt("", "name of the data set; empty = the name of the folder with the records")
    root: str = opt("", "folder that the paths of a table are relative to; empty = the table's folder")
    pattern: str = opt(
        "",
        "folder: file names with fields, '{plate}_{well}_{channel}.png'; table: paths made from its columns, "
        "'cells/{id}_{channel}.png'. Fields other than id and channel become group columns",
    )
    path_column: str = opt("path", "table: the column with files that hold all channels")
    files: tuple[str, ...] = opt(
        (), "one a channel: channel=column (table; default path_<channel>), or channel=word in the file name (pattern)"
    )
    masks: str = opt(
        "", "table: the column with mask files; or a pattern such as 'masks/{id}.png'. Non-zero = the cell"
    )
    id_column: str = opt("id", "column with unique names; where the table has none, ids are made from the file names")
    labels: tuple[str, ...] = opt((), "label column(s) or pattern fields; empty = a column 'labels' or 'label' if any")
    labels_from: Literal["column", "parent", "none"] = opt(
        "column", "'parent' takes the name of each image's folder, 'none' ignores labels"
    )
    label_separator: str = opt(";", "what stands between several labels of one image")
    label_names: tuple[str, ...] = opt((), "the allowed classes, in order; empty = the classes found, sorted")
    groups: tuple[str, ...] = opt((), "columns to keep as groups; empty = all that are not paths")
    where: tuple[str, ...] = opt((), "keep rows with column=value (or column=value1|value2) only")
    split_column: str = opt("", "column with train, val or test; empty = a column 'split' if any")
    split_by: str = opt("", "group column that is never torn apart; splits are then made, stratified over labels")
    split_stratify: tuple[str, ...] = opt((), "columns that split_by spreads over the splits besides the labels")
    split_fractions: tuple[float, ...] = opt((0.7, 0.1, 0.2), "shares of train, val and test for split_by")
    split_seed: int = opt(0, "seed of split_by")
    sizes: Literal["error", "crop", "pad", "resize"] = opt(
        "error", "what to do with images of different sizes: error, crop, pad or resize"
    )
    size: tuple[int, ...] = opt((), "side, or height and width, that crop, pad or resize bring all images to")
    um_per_pixel: float = opt(0.0, "physical pixel size in micrometres; 0 = as the files say")
    colour: Literal["refuse", "max"] = opt(
        "refuse", "RGB files given for one channel: refuse, or max (the brightest of the three)"
    )
    projection: Literal["none", "max", "mean"] = opt("none", "z-stacks: none refuses them; max; mean")
    float_range: tuple[float, ...] = opt(
        (), "pixel values that become 0 and 65535 in TIFFs of other types than 8/16 bit"
    )
    max_pixels: int = opt(MAX_PIXELS, "refuse files whose header claims more values than this")
    allow_outside: bool = opt(False, "permit absolute paths, '..' and links out of the root in a table")
    bad_images: Literal["error", "drop"] = opt(
        "error", "unreadable images, and single ones of another kind than the rest: error, or drop (see skipped.csv)"
    )
    max_dropped: float = opt(0.001, "largest share of images that bad_images=drop may drop")
    constant: Literal["error", "keep"] = opt(
        "error", "images of one single value in every channel: error (or dropped), or keep"
    )
    check: Literal["pixels", "headers"] = opt(
        "pixels", "decode every image before packing begins, or only read the headers"
    )

    def __post_init__(self) -> None:
        check_literals(self)
        problems = []
        if not self.path:
            problems.append("path: give a folder of images or a table of paths.")
        try:
            named = channel_sets.parse(self.channels).names if self.channels else ()
            if not named:
                problems.append("channels: name the channels of the images, for example 'nucleus,gfp:protein'.")
            for item in self.files:
                name, sep, value = item.partition("=")
                if not sep or not value or name not in named:
                    hint = nearest(name, named)
                    problems.append(f"files: '{item}' is not channel=column for a channel of {', '.join(named)}.{hint}")
        except ValueError as error:
            problems.append(f"channels: {error}")
        for item in self.where:
            if not item.partition("=")[1]:
                problems.append(f"where: '{item}' is not column=value.")
        own = [name for name in self.groups if name in CORE_COLUMNS]
        if own:
            problems.append(f"groups: {', '.join(own)} are the manifest's own columns.")
        if self.split_by and self.split_column:
            problems.append("split_by and split_column exclude each other.")
        if self.split_stratify and not self.split_by:
            problems.append("split_stratify: needs split_by.")
        if self.split_by:
            try:
                check_fractions(self.split_fractions)
            except ValueError as error:
                problems.append(str(error))
        if not self.label_separator:
            problems.append("label_separator: must not be empty.")
        if len(self.size) not in (0, 1, 2) or any(s < 1 for s in self.size):
            problems.append(f"size={list(self.size)}: one side, or height and width, each at least 1.")
        if self.size and self.sizes == "error":
            problems.append("size: say with sizes how images are brought to it (crop, pad or resize).")
        if self.um_per_pixel < 0:
            problems.append(f"um_per_pixel={self.um_per_pixel}: must be positive (0 = as the files say).")
        if self.float_range and (len(self.float_range) != 2 or not self.float_range[0] < self.float_range[1]):
            problems.append(f"float_range={list(self.float_range)}: two numbers, the lower first.")
        if not 0 <= self.max_dropped < 1:
            problems.append(f"max_dropped={self.max_dropped}: must lie in [0, 1).")
        if self.max_pixels < 1:
            problems.append(f"max_pixels={self.max_pixels}: must be at least 1.")
        if problems:
            raise ConfigError("\n  ".join(problems))

    @property
    def channel_set(self) -> ChannelSet:
        return channel_sets.parse(self.channels)

    @property
    def tokens(self) -> dict[str, str]:
        """Channel name -> the column or word that stands for it (itself where none is given)."""
        given = dict(item.split("=", 1) for item in self.files)
        return {name: given.get(name, name) for name in self.channel_set.names}

    @property
    def target(self) -> tuple[int, int] | None:
        """The wanted (height, width), or None."""
        return (self.size[0], self.size[-1]) if self.size else None

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments for reading one image file."""
        return {
            "max_pixels": self.max_pixels,
            "projection": self.projection,
            "float_range": self.float_range or None,
        }
