"""The compiler flags that training on a CPU wants, set before jax starts. Never imports jax.

XLA:CPU of jaxlib 0.10 fuses through a library (YNN) that makes a float32 training step several times slower, most of
it in page faults; an empty fusion type switches it off. Later versions do not show it. k-NN is faster with the
default, so only training and embedding ask for the flag.

`PROTLOC_CPU_KERNELS=onednn` has jaxlib 0.12 do its matrix products by oneDNN, which knows the processor's bfloat16
units (AMX): a bfloat16 step takes 0.65 of the time there. Such programs cannot be kept in the compilation cache (their
serialisation fails), so every start compiles anew; that is why it is not the default.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import MutableMapping

from protloc_jax.config import nearest

YNN_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
AFFECTED_SERIES = ("0.10.",)
KERNELS = "PROTLOC_CPU_KERNELS"
KERNEL_SETS = ("default", "onednn")
ONEDNN_FLAGS = {YNN_FLAG: "", "--xla_cpu_use_onednn": "true", "--xla_cpu_experimental_onednn_custom_call": "true"}
# The series whose wheels take these flags and do what they say; 0.10 takes them and leaves the products as they are.
ONEDNN_SERIES = ("0.12.",)


def append_cpu_flags(environ: MutableMapping[str, str] = os.environ, *, jaxlib: str | None = None) -> bool:
    """Append the flags to `XLA_FLAGS`; returns whether it did.

    Call it before jax first touches a device: XLA reads the variable once. Nothing happens on a jaxlib that does not
    need it (an unknown flag would abort the process); a flag that the user has set keeps its value.
    `jaxlib` is the version to decide by; by default that of the installed package.
    Raises ValueError for an unknown `PROTLOC_CPU_KERNELS`, or one that this jaxlib has not.
    """
    if jaxlib is None:
        try:
            jaxlib = importlib.metadata.version("jaxlib")
        except importlib.metadata.PackageNotFoundError:
            return False
    wanted = {YNN_FLAG: ""} if jaxlib.startswith(AFFECTED_SERIES) else {}
    if wants_onednn(environ):
        if not jaxlib.startswith(ONEDNN_SERIES):
            raise ValueError(f"{KERNELS}=onednn needs jaxlib {' or '.join(ONEDNN_SERIES)}x, this is {jaxlib}.")
        wanted = ONEDNN_FLAGS
    flags = environ.get("XLA_FLAGS", "")
    given = {flag.partition("=")[0] for flag in flags.split()}
    missing = [f"{name}={value}" for name, value in wanted.items() if name not in given]
    if missing:
        environ["XLA_FLAGS"] = " ".join([*([flags] if flags else []), *missing])
    return bool(missing)


def wants_onednn(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether `PROTLOC_CPU_KERNELS` names oneDNN. Raises ValueError for an unknown name."""
    kernels = environ.get(KERNELS) or KERNEL_SETS[0]
    if kernels not in KERNEL_SETS:
        raise ValueError(f"{KERNELS}={kernels}: not one of {', '.join(KERNEL_SETS)}.{nearest(kernels, KERNEL_SETS)}")
    return kernels == "onednn"
