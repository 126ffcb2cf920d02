"""Data sets for tensorflow-datasets: any records folder, raw folder or simulation becomes a builder and its files.

`write` makes `DIR/NAME/1.0.0/` in ArrayRecord format, which needs neither TensorFlow nor this package to be read:

    source = tfds.data_source("NAME", data_dir="DIR", split="train")     # or
    source = tfds.builder_from_directory("DIR/NAME/1.0.0").as_data_source("train")
    source[0]["image"]          # [height, width, channel] uint8 or uint16, exactly the pixels of the records

An example holds `image`, `id` (bytes), `row` (row of the manifest), and where the data set has them `mask`, `labels`
(class numbers), `label` (single-label sets; -1 for none) and `groups` (one value a column, None where missing). The
splits are the manifest's, in its order. `builder.info.metadata` holds channels, pixel size and the data's digest.

What TFDS 4.9.10 does without TensorFlow, found by trying it:
- It writes and reads ArrayRecord, slices of splits and all features used here. Nothing imports TensorFlow.
- `features.Image` cannot encode, knows at most four channels, and reads 16 bit only with OpenCV; hence plain tensors.
- `GeneratorBasedBuilder` moves to temporary files above 1000 MiB a split, by TensorFlow's file layer, and so fails.
  `ShardBasedBuilder`, used here, writes shard by shard in a given order and has no such limit; it holds the decoded
  examples of the shard being written, so shards are cut at 256 MiB of pixels.
- `as_dataset`, `tfds.load` and the `tfds` command line (so `tfds build`) need TensorFlow; `data_source` is the way to
  read. Arrays that it gives are read-only, text is bytes.
- Writing goes to a local or mounted file system.

Apache Beam (extra `beam`): with `beam_runner` every shard is made by a worker, straight from the raw images where the
source is a folder; nothing but row numbers, ids, labels and groups travels. Workers must see the images and DIR under
the same paths. A killed run is not resumed: it leaves `DIR/NAME/*.incomplete*`, which may be deleted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from protloc_jax.data.manifest import capped
from protloc_jax.data.packing_progress import Progress
from protloc_jax.datasets.image_set import ImageSet
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.tfds_examples import ShardExamples, description_of, features_of, metadata_of, shards_of

VERSION = "1.0.0"
Examples = Callable[[], Iterator[tuple[int, dict[str, Any]]]]
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class ImageSetBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """A TFDS builder of images; a subclass says in `image_set` which. ArrayRecord unless another format is asked for.

    Not registered, so `tfds.builder(name)` finds prepared files and never this class.
    """

    VERSION = tfds.core.Version(VERSION)
    shard_size = 0  # examples a shard; 0 = as many as hold 256 MiB of pixels
    advance: Callable[[int], None] | None = None  # called for every example that is written in this process
    url_infos = None  # nothing is downloaded; TFDS would look for checksums with a package that it does not require

    def __init__(self, *, file_format: Any = "array_record", **kwargs: Any):
        super().__init__(file_format=file_format, **kwargs)

    def image_set(self) -> ImageSet:
        """The images, called when the features are asked for and when examples are generated."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        data = self.image_set()
        label = "label" if data.manifest.label_kind == "single" else "labels"
        return tfds.core.DatasetInfo(
            builder=self,
            description=description_of(data),
            features=features_of(data),
            supervised_keys=("image", label) if data.manifest.label_names else None,
            metadata=tfds.core.MetadataDict(metadata_of(data)),
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Examples]]:
        shards = shards_of(self.image_set(), shard_size=self.shard_size)
        advance, only = self.advance, self.__dict__.get("_only_split")
        return {
            split: [shard if advance is None else partial(_counted, shard, advance) for shard in own]
            for split, own in shards.items()
            if only in (None, split)
        }

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        # One split at a time: TFDS runs one Beam pipeline again for each split, with the splits before it.
        made = []
        try:
            for split in shards_of(self.image_set(), shard_size=self.shard_size):
                self._only_split = split
                super()._download_and_prepare(dl_manager, download_config)
                made.append(self.info.splits[split])
        finally:
            self._only_split = None
        self.info.set_splits(tfds.core.SplitDict(made))
        for stray in self.data_path.glob("*.shard_infos.json"):
            stray.unlink()


def builder_of(data: ImageSet, data_dir: str | Path, *, name: str = "", shard_size: int = 0) -> ImageSetBuilder:
    """A TFDS builder of any data set, under `data_dir`; `name` defaults to the set's own, made fit for TFDS.

    Raises DatasetError for a bad name, or for content that TFDS cannot hold.
    """
    if name and not _NAME.fullmatch(name):
        raise DatasetError(f"name '{name}': TFDS names are like 'my_cells_2'. Did you mean '{fit_name(name)}'?")
    chosen, size = name or fit_name(data.name), shard_size

    class PreparedImages(ImageSetBuilder, skip_registration=True):
        name = chosen
        shard_size = size

        def image_set(self) -> ImageSet:
            return data

    return PreparedImages(data_dir=str(data_dir))


def write(
    data: ImageSet,
    out: str | Path,
    *,
    name: str = "",
    shard_size: int = 0,
    beam_runner: str = "",
    beam_options: Sequence[str] = (),
    restart: bool = False,
    progress: bool = False,
) -> Path:
    """Write `out/NAME/1.0.0/` and return it; a folder that already holds the same data is left as it is.

    beam_runner   "" writes here; "DirectRunner", "FlinkRunner", ... write with Apache Beam
    beam_options  the runner's options, such as "--direct_num_workers=4"
    restart       write again over other data under this name
    progress      a bar on standard error; not with Beam, whose workers have none
    Raises DatasetError where other data is there, for content TFDS cannot hold, and where Beam is not installed.
    """
    builder = builder_of(data, out, name=name, shard_size=shard_size)
    directory = Path(str(builder.data_path))
    if directory.exists() and not restart:
        found = (builder.info.metadata or {}).get("digest")
        if found != data.digest:
            raise DatasetError(
                f"{directory} holds other data (digest {str(found)[:16]}, not {data.digest[:16]}); choose another name "
                "or folder, or restart to write over it."
            )
        return directory
    mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS if restart else tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
    beam = _beam(beam_runner, beam_options) if beam_runner else {}
    config = tfds.download.DownloadConfig(download_mode=mode, try_download_gcs=False, **beam)
    with Progress(progress and not beam, "writing", 0, data.manifest.n) as bar:
        builder.advance = None if beam else bar.advance
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloading; nothing is downloaded
            builder.download_and_prepare(download_config=config)
    return directory


def _counted(shard: ShardExamples, advance: Callable[[int], None]) -> Iterator[tuple[int, dict[str, Any]]]:
    for example in shard():
        yield example
        advance(1)


def fit_name(name: str) -> str:
    """A name that TFDS takes: lower case letters, digits and '_', a letter first."""
    fit = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return fit if _NAME.fullmatch(fit) else f"set_{fit}".strip("_")


def _beam(runner: str, options: Sequence[str]) -> dict[str, Any]:
    if importlib.util.find_spec("apache_beam") is None:
        raise DatasetError("Apache Beam is not installed: pip install 'protloc-jax[beam]', or write without it.")
    from apache_beam.options.pipeline_options import PipelineOptions  # type: ignore[import-not-found]

    bad = [option for option in options if not option.startswith("--")]
    if bad:
        raise DatasetError(f"Beam options begin with '--': {capped(bad)}.")
    return {"beam_runner": runner, "beam_options": PipelineOptions(list(options))}
