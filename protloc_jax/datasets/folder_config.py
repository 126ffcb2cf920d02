"""How a folder of images, or a table of their paths, is to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from protloc_jax import channels as channel_sets
from protloc_jax.channels import ChannelSet
from protloc_jax.config import ConfigError, check_literals, nearest, opt
from protloc_jax.data.manifest import CORE_COLUMNS
from protloc_jax.datasets import addresses
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.resampling import MOST_ENLARGED, MOST_REDUCED
from protloc_jax.datasets.splitting import check_fractions
from protloc_jax.images import MAX_PIXELS
from protloc_jax.images.header import Reading


@dataclass(frozen=True)
class FolderConfig:
    """A `folder` data set: where the images are, what their channels mean, what their labels, groups and splits are.

    Raises ConfigError naming every value that cannot be.
    """

    path: str = opt(
        "",
        "a folder of images, an OME-Zarr plate, or a CSV, TSV or Parquet table with paths; also s3://, gs://, https://",
    )
    channels: str = opt("", "the channels in the files' order, name or name:role, for example 'nucleus,gfp:protein'")
    name: str = opt("", "name of the data set; empty = the name of the folder with the records")
    root: str = opt("", "folder or address that the paths of a table are relative to; empty = the table's folder")
    layout: Literal["auto", "plain", "load_data", "path_list"] = opt(
        "auto",
        "table: load_data (CellProfiler, JUMP: FileName_/PathName_ or URL_<channel>, Metadata_), path_list (HPA tools: "
        "r_image, y_image, b_image, g_image), plain, or auto (by the header)",
    )
    pattern: str = opt(
        "",
        "folder: file names with fields, '{plate}_{well}_{channel}.png'; table: paths made from its columns, "
        "'cells/{id}_{channel}.png'. Fields other than id and channel become group columns; {site:int} is a number",
    )
    path_column: str = opt("path", "table: the column with files that hold all channels")
    files: tuple[str, ...] = opt(
        (),
        "one a channel: channel=column (table; default path_<channel>), or channel=word in the file name (pattern) or "
        "in the columns of a load_data table (dna=OrigDNA)",
    )
    missing_channels: Literal["error", "zero"] = opt("error", "a row without the file of a channel: error, or zeros")
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
    plate_map: str = opt("", "table with a well (and plate) column and any others, or a folder of them: joined by well")
    barcode: str = opt("", "table of plates and the names of their plate maps")
    plate_column: str = opt("plate", "the images' column with plates, for plate_map")
    well_column: str = opt("well", "the images' column with wells, for plate_map")
    groups: tuple[str, ...] = opt((), "columns to keep as groups; empty = all that are not paths")
    numbers: tuple[str, ...] = opt((), "table: columns that hold numbers, which text tables do not say")
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
    pixel_columns: tuple[str, ...] = opt((), "table: column with each row's um a pixel, or two (height, width)")
    target_um_per_pixel: float = opt(0.0, "resample every image to this pixel size before packing; 0 = as they are")
    resize_factor: float = opt(
        0.0, "resize every image by this factor before packing, whatever its pixel size; 0 = as they are"
    )
    resample: Literal["lanczos", "bicubic", "area"] = opt(
        "lanczos", "how: lanczos, bicubic, or area (mean over the new pixel); masks: nearest"
    )
    white_point: int = opt(
        0,
        "last of all, values from this one on become the largest of the pixels' type and those below are stretched to "
        "it; 0 = as they are",
    )
    illumination: Literal["none", "given", "table", "estimate"] = opt(
        "none",
        "even out each plate's illumination: none, given (a folder of functions), table (the Illum columns of a "
        "load_data table), or estimate (from that plate's images)",
    )
    illumination_by: str = opt("plate", "the column that tells which images share an illumination")
    illumination_folder: str = opt("", "given: local folder with the functions, .npy or TIFF")
    illumination_pattern: str = opt(
        "{plate}_{channel}.npy",
        "given: their names, such as '{plate}/{plate}_Illum{channel}.npy'; {channel} is the word given with files",
    )
    illumination_images: str = opt(
        "",
        "estimate: a table with the images to estimate from, such as all of each plate; empty = those that are packed",
    )
    illumination_statistic: Literal["mean", "median"] = opt("mean", "estimate: mean or median of the images")
    illumination_smoothing: Literal["median", "gaussian"] = opt("median", "estimate: median filter, or gaussian")
    illumination_window: float = opt(0.3, "estimate: width of the filter as a share of the shorter side")
    illumination_unit: Literal["mean", "minimum"] = opt(
        "mean", "estimate: what becomes 1, the function's mean or its robust minimum"
    )
    colour: Literal["refuse", "max"] = opt(
        "refuse", "RGB files given for one channel: refuse, or max (the brightest of the three)"
    )
    projection: Literal["none", "max", "mean", "middle"] = opt(
        "none", "z-stacks: none refuses them; max; mean; middle (one plane)"
    )
    unnamed_axes: str = opt("", "TIFF: the axes of files that have as many and name none of them, such as ZCYX")
    series: int = opt(-1, "files with several images (positions, scenes): which, from 0; -1 refuses them")
    time: int = opt(-1, "time series: which time point, from 0; -1 refuses them")
    level: int = opt(0, "OME-Zarr: resolution level, 0 the finest")
    missing_chunks: Literal["error", "fill"] = opt(
        "error", "OME-Zarr chunks without a file: error, or fill with the array's fill value"
    )
    float_range: tuple[float, ...] = opt((), "pixel values that become 0 and 65535 where pixels are not 8 or 16 bit")
    max_pixels: int = opt(MAX_PIXELS, "refuse files whose header claims more values than this")
    allow_outside: bool = opt(False, "permit absolute paths, '..' and links out of the root in a table")
    path_prefix: tuple[str, ...] = opt((), "beginnings of a table's paths that root stands for, of another machine say")
    fetch_from: tuple[str, ...] = opt(
        (), "addresses below which a table's files may be fetched, such as s3://cellpainting-gallery"
    )
    stage: str = opt("", "folder for copies of remote files; empty = protloc_jax/staged in the user's cache")
    stage_limit_gb: float = opt(50.0, "most that this folder may hold")
    anonymous: bool = opt(False, "read public s3:// and gs:// buckets without credentials")
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
        problems += self._table_problems() + self._pixel_problems()
        if self.um_per_pixel < 0:
            problems.append(f"um_per_pixel={self.um_per_pixel}: must be positive (0 = as the files say).")
        if self.float_range and (len(self.float_range) != 2 or not self.float_range[0] < self.float_range[1]):
            problems.append(f"float_range={list(self.float_range)}: two numbers, the lower first.")
        if not 0 <= self.max_dropped < 1:
            problems.append(f"max_dropped={self.max_dropped}: must lie in [0, 1).")
        for name, least in (("series", -1), ("time", -1), ("level", 0)):
            if getattr(self, name) < least:
                problems.append(f"{name}={getattr(self, name)}: must be at least {least}.")
        if self.max_pixels < 1:
            problems.append(f"max_pixels={self.max_pixels}: must be at least 1.")
        if problems:
            raise ConfigError("\n  ".join(problems))

    def _table_problems(self) -> list[str]:
        """What is wrong with where files are and how tables are joined."""
        problems = []
        if self.pattern and self.layout not in ("auto", "plain"):
            problems.append(f"layout={self.layout}: a pattern makes the paths, so the layout must be plain.")
        if self.barcode and not self.plate_map:
            problems.append("barcode: needs plate_map, the plate maps that it names.")
        if self.path_prefix and not self.root:
            problems.append("path_prefix: say with root what it stands for.")
        if not self.stage_limit_gb > 0:
            problems.append(f"stage_limit_gb={self.stage_limit_gb}: must be positive.")
        where = {"path": self.path, "root": self.root, "plate_map": self.plate_map, "barcode": self.barcode}
        for name, text in [*where.items(), *(("fetch_from", text) for text in self.fetch_from)]:
            if addresses.scheme_of(text) or name == "fetch_from":
                try:
                    addresses.check_address(text)
                except DatasetError as error:
                    problems.append(f"{name}: {error}")
        if addresses.scheme_of(self.stage):
            problems.append(f"stage: '{self.stage}' is an address; copies of remote files need a local folder.")
        return problems

    def _pixel_problems(self) -> list[str]:
        """What is wrong with pixel sizes and illumination."""
        problems = []
        try:
            Reading(unnamed_axes=self.unnamed_axes)
        except ValueError as error:
            problems.append(str(error))
        if not 0 <= self.target_um_per_pixel < float("inf"):
            problems.append(f"target_um_per_pixel={self.target_um_per_pixel}: must be positive (0 = no resampling).")
        if self.resize_factor and not 1 / MOST_REDUCED <= self.resize_factor <= MOST_ENLARGED:
            problems.append(
                f"resize_factor={self.resize_factor:g}: 0 (as they are), or 1/{MOST_REDUCED:g} to {MOST_ENLARGED:g}."
            )
        if self.resize_factor and self.target_um_per_pixel:
            problems.append("resize_factor and target_um_per_pixel exclude each other.")
        if not 0 <= self.white_point <= 65535:
            problems.append(f"white_point={self.white_point}: a value of 16-bit pixels, 1 to 65535 (0 = as they are).")
        if len(self.pixel_columns) > 2:
            problems.append("pixel_columns: one column, or two (height, width).")
        if self.illumination == "given" and not self.illumination_folder:
            problems.append("illumination=given: say with illumination_folder where the functions are.")
        if addresses.scheme_of(self.illumination_folder):
            problems.append("illumination_folder: must be a local folder.")
        if self.illumination_images and self.illumination != "estimate":
            problems.append("illumination_images: is read with illumination=estimate only.")
        if self.illumination_folder and self.illumination != "given":
            problems.append("illumination_folder: is read with illumination=given only.")
        if not 0 < self.illumination_window <= 1:
            problems.append(f"illumination_window={self.illumination_window}: must lie in (0, 1].")
        return problems

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
            "series": self.series if self.series >= 0 else None,
            "time": self.time if self.time >= 0 else None,
            "level": self.level,
            "missing_chunks": self.missing_chunks,
            "unnamed_axes": self.unnamed_axes,
        }
