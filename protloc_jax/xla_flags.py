"""The one compiler flag that training on a CPU wants, set before jax starts. Never imports jax.

XLA:CPU of jaxlib 0.10 fuses through a library (YNN) that makes a float32 training step several times slower, most of
it in page faults; an empty fusion type switches it off. Later versions do not show it. k-NN is faster with the
default, so only training and embedding ask for the flag.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import MutableMapping

YNN_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
AFFECTED_SERIES = ("0.10.",)


def append_cpu_flags(environ: MutableMapping[str, str] = os.environ, *, jaxlib: str | None = None) -> bool:
    """Append the flag to `XLA_FLAGS`; returns whether it did.

    Call it before jax first touches a device: XLA reads the variable once. Nothing happens on a jaxlib that does not
    need it (an unknown flag would abort the process), or when the user has set the flag, to whatever value.
    `jaxlib` is the version to decide by; by default that of the installed package.
    """
    if jaxlib is None:
        try:
            jaxlib = importlib.metadata.version("jaxlib")
        except importlib.metadata.PackageNotFoundError:
            return False
    flags = environ.get("XLA_FLAGS", "")
    if not jaxlib.startswith(AFFECTED_SERIES) or YNN_FLAG in flags:
        return False
    environ["XLA_FLAGS"] = f"{flags} {YNN_FLAG}=".strip()
    return True
