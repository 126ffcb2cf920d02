"""Where structures lie in the images of records: the simulator's own maps, or the mask that is packed with an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from protloc_jax import simulate
from protloc_jax.config import nearest
from protloc_jax.data.read import Records
from protloc_jax.datasets.simulated import config_of

Progress = Callable[[int, int], None]


def known_structures(records: Records) -> tuple[str, ...]:
    """The structures that can be asked for in some records; none where nothing is known of them."""
    config = config_of(records.info)
    if config is not None:
        return simulate.structure_names(config)
    return ("cells=mask", "nuclei=mask") if records.info.has_mask else ()


def checked_structures(records: Records, names: Sequence[str]) -> tuple[str, ...]:
    """The structures asked for, where records can have them; ValueError listing every one that they cannot have.

    Simulated records: `simulate.structure_names` (nuclei, cells, a channel, CHANNEL:PART). Others that hold masks:
    `cells=mask` or `nuclei=mask`, because records hold one mask an image and do not say what it outlines.
    """
    config = config_of(records.info)
    wanted = tuple(dict.fromkeys(names))
    if config is not None:
        known = simulate.structure_names(config)
        bad = [f"'{name}'{nearest(name, known)}" for name in wanted if name not in known]
        if bad:
            raise ValueError(f"no structure {', '.join(bad)} Structures of these images: {', '.join(known)}.")
        return wanted
    if not records.info.has_mask:
        raise ValueError(
            f"{records.directory}: these records have no masks and were not simulated, so nobody knows where "
            f"{', '.join(wanted)} lie; pack them with masks."
        )
    bad = [name for name in wanted if name.partition("=")[2] != "mask" or not name.partition("=")[0]]
    if bad:
        raise ValueError(
            f"{', '.join(bad)}: these are real images, of which one mask each is known; write what it outlines, for "
            "example cells=mask or nuclei=mask."
        )
    return wanted


def structures_of(
    records: Records, rows: Sequence[int], names: Sequence[str], *, progress: Progress | None = None
) -> list[dict[str, np.ndarray]]:
    """The maps [H, W] of `names` (`checked_structures`) in each of the records `rows`; what an image lacks is absent.

    Simulated images are rendered again and held against the record, so that no map of another image is ever scored.
    Raises ValueError naming the first id whose pixels differ.
    """
    config = config_of(records.info)
    found = []
    table = simulate.catalogue(config).set_index("id", drop=False) if config is not None else None
    for done, row in enumerate(rows):
        name = records.manifest.ids[row]
        if config is None or table is None:
            mask = (records.mask(row) > 0).astype(np.float32)
            found.append(dict.fromkeys(names, mask))
        else:
            if name not in table.index:
                raise ValueError(f"{records.directory}: the simulation of these records makes no image '{name}'.")
            own = table.loc[name]
            rendered = simulate.render(config, own)
            if not np.array_equal(rendered.image, records[row]):
                raise ValueError(
                    f"{records.directory}: image '{name}' is not the one that the simulator makes now (another "
                    "version, or changed records), so its structures are not known; simulate the records anew."
                )
            maps = simulate.densities(config, own, rendered=rendered)
            found.append({one: maps[one] for one in names if one in maps})
        if progress is not None:
            progress(done + 1, len(rows))
    return found
