"""XLA settings under which the tests' programs compile in about a fifth of the time; set before jax first compiles.

Most of the suite's time is compilation of tiny programs that run a few times. The graph passes (sharding, collectives,
layouts) stay as they are; what goes is LLVM's optimisation, the emitters that build every fusion through MLIR, and the
split of a program into 32 parts that are compiled alone.
Whatever a test compares with bits is compared within one setting. PROTLOC_TEST_COMPILATION=full leaves XLA's defaults.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping, MutableMapping

QUICK = ("--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1")
# A flag that XLA does not know aborts the process, and jaxlib 0.12 no longer knows this one.
EMITTERS, KNOWN_TO = "--xla_cpu_use_fusion_emitters=false", ("0.10.",)


def append_quick_flags(environ: MutableMapping[str, str] = os.environ) -> None:
    """Add the settings to `XLA_FLAGS`, save those that stand there already."""
    if environ.get("PROTLOC_TEST_COMPILATION") == "full":
        return
    wanted = [*QUICK, *([EMITTERS] if importlib.metadata.version("jaxlib").startswith(KNOWN_TO) else [])]
    given = environ.get("XLA_FLAGS", "")
    environ["XLA_FLAGS"] = " ".join([given, *(w for w in wanted if w.split("=")[0] not in given)]).strip()


def forced_devices(count: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a program that sees `count` devices of the host, and compiles like the tests that start it."""
    kept = {k: v for k, v in environ.items() if k != "XLA_FLAGS"}
    kept["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
    append_quick_flags(kept)
    return kept
