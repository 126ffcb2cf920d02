"""Writing simulated knowledge about a simulated screen beside it, or anywhere."""

from __future__ import annotations

import json
from pathlib import Path

from protloc_jax.config import ConfigError, from_mapping
from protloc_jax.data import records
from protloc_jax.data.durable import write_whole
from protloc_jax.data.manifest import capped
from protloc_jax.datasets import raw_writer, simulated
from protloc_jax.simulate import SimConfig
from protloc_jax.simulate.knowledge_config import KnowledgeConfig
from protloc_jax.simulate.knowledge_files import CONFIG_FILE, knowledge_files


def write_knowledge(config: SimConfig, knowledge: KnowledgeConfig, out: str | Path) -> dict[str, int]:
    """Write every file of `knowledge_files` to the folder `out`; returns name -> bytes.

    The same call writes the same bytes again. Raises ConfigError where `out` holds files of these names that were made
    from another configuration.
    """
    root, files = Path(out), knowledge_files(config, knowledge)
    told = root / CONFIG_FILE
    if not told.exists() or told.read_bytes() != files[CONFIG_FILE]:
        taken = [name for name in files if (root / name).exists()]
        if taken:
            raise ConfigError(f"{root} holds other files of these names: {capped(taken)}; name a new folder.")
    root.mkdir(parents=True, exist_ok=True)
    for name, data in sorted(files.items(), key=lambda item: item[0] != CONFIG_FILE):
        write_whole(root / name, data)
    return {name: len(data) for name, data in files.items()}


def simulated_config(folder: str | Path) -> SimConfig:
    """The configuration that a folder of simulated raw files, or of records made from such, was made with.

    Raises FileNotFoundError for a folder that is not there and ConfigError for one of real data.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder.")
    path = root / raw_writer.CONFIG_FILE
    if path.is_file():
        return from_mapping(SimConfig, json.loads(path.read_text()))
    with records.open(root) as opened:
        found = simulated.config_of(opened.info)
    if found is None:
        raise ConfigError(f"{root}: not a simulated data set; knowledge is simulated about simulated screens only.")
    return found
