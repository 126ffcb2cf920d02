"""One process of a `protloc pretrain` that notes which images every step took; started by the tests of launched runs.

launched_run.py LOGS SECONDS_A_BATCH CONFIG_OVERRIDE ...
"""

from __future__ import annotations

import os
import sys
import time
import zlib
from pathlib import Path

import jax

from protloc_jax import devices
from protloc_jax.cli.main import main
from protloc_jax.data import loader


def note_images(logs: Path, seconds: float) -> None:
    """Have every loader of training batches write a line "step, process: checksums of the images" for each."""
    plain = loader.Loader

    class Noting(plain):
        def __next__(self):
            batch = super().__next__()
            time.sleep(seconds)
            epoch, offset = (int(x) for x in batch.example[0])
            process, size = jax.process_index(), len(batch.image) * jax.process_count()
            step = (epoch * self.n + offset) // size
            with (logs / f"images-{os.getpid()}").open("a") as file:
                file.write(f"{step} {process} {' '.join(str(zlib.crc32(i.tobytes())) for i in batch.image)}\n")
            return batch

    loader.Loader = Noting  # type: ignore[misc]


def keep_every_program() -> None:
    """Compiled programs of every size are kept: compiling is most of these tests' time."""
    plain = devices.set_up_compilation_cache

    def keeping(directory: str = "") -> Path | None:
        path = plain(directory)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        return path

    devices.set_up_compilation_cache = keeping


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    own = folder / f"pid-{os.environ['PROTLOC_PROCESS']}"
    own.with_suffix(".new").write_text(str(os.getpid()))
    own.with_suffix(".new").replace(own)
    note_images(folder, float(sys.argv[2]))
    keep_every_program()
    sys.exit(main(["pretrain", *sys.argv[3:]]))
