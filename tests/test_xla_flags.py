"""The compiler flag: only where it is needed, never over the user's own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import numpy as np
import pytest

from protloc_jax.xla_flags import KERNELS, ONEDNN_FLAGS, ONEDNN_SERIES, YNN_FLAG, append_cpu_flags


@pytest.mark.parametrize("version", ["0.10.0", "0.10.2"])
def test_appended_where_needed(version):
    environ = {"XLA_FLAGS": "--xla_a=1"}
    assert append_cpu_flags(environ, jaxlib=version)
    assert environ["XLA_FLAGS"] == f"--xla_a=1 {YNN_FLAG}="
    assert not append_cpu_flags(environ, jaxlib=version)
    assert environ["XLA_FLAGS"].count(YNN_FLAG) == 1


@pytest.mark.parametrize("version", ["0.9.2", "0.11.0", "0.12.0.1", "0.100.0"])
def test_left_out_where_it_could_abort_the_process(version):
    environ: dict[str, str] = {}
    assert not append_cpu_flags(environ, jaxlib=version)
    assert environ == {}


def test_the_users_value_stays():
    environ = {"XLA_FLAGS": f"{YNN_FLAG}=LIBRARY_FUSION_TYPE_DOT"}
    before = dict(environ)
    assert not append_cpu_flags(environ, jaxlib="0.10.2")
    assert environ == before


def test_jax_stays_unloaded_and_then_accepts_the_flag():
    program = (
        "import sys; from protloc_jax.xla_flags import append_cpu_flags; append_cpu_flags();"
        "assert 'jax' not in sys.modules; import jax; print(jax.numpy.ones(3).sum())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3.0"


def test_onednn_where_the_user_asks_for_it_and_over_no_flag_of_theirs():
    environ = {KERNELS: "onednn", "XLA_FLAGS": "--xla_cpu_use_onednn=false"}
    assert append_cpu_flags(environ, jaxlib="0.12.0.1")
    given = dict(flag.split("=") for flag in environ["XLA_FLAGS"].split())
    assert given == {**ONEDNN_FLAGS, "--xla_cpu_use_onednn": "false"}


def test_onednn_is_refused_where_it_is_not():
    with pytest.raises(ValueError, match=r"needs jaxlib 0\.12\.x, this is 0\.10\.2"):
        append_cpu_flags({KERNELS: "onednn"}, jaxlib="0.10.2")
    with pytest.raises(ValueError, match=r"one-dnn: not one of default, onednn.*onednn"):
        append_cpu_flags({KERNELS: "one-dnn"}, jaxlib="0.12.0")


PRODUCTS = """
import os, sys
from protloc_jax.xla_flags import append_cpu_flags
assert append_cpu_flags() == bool(os.environ.get("PROTLOC_CPU_KERNELS"))
import jax, jax.numpy as jnp, numpy as np
from protloc_jax.model.layers import linear
from protloc_jax.devices import set_up_compilation_cache
assert (set_up_compilation_cache(sys.argv[1]) is None) == bool(os.environ.get("PROTLOC_CPU_KERNELS"))
rng = np.random.default_rng(0)
x, kernel, bias = (jnp.asarray(rng.standard_normal(s), sys.argv[3]) for s in ((512, 384), (384, 768), (768,)))
loss = lambda kernel, bias: jnp.square(jax.nn.gelu(linear(x, kernel, bias)).astype("float32")).sum()
step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
assert ("onednn$matmul" in step.lower(kernel, bias).compile().as_text()) == bool(os.environ.get("PROTLOC_CPU_KERNELS"))
first, second = step(kernel, bias), step(kernel, bias)
assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)))
np.savez(sys.argv[2], *(np.asarray(a, "float32") for a in jax.tree.leaves(first)))
"""


@pytest.mark.skipif(
    not importlib.metadata.version("jaxlib").startswith(ONEDNN_SERIES), reason="this jaxlib makes no oneDNN calls"
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 3e-2)])
def test_products_by_onednn_are_the_same_products(tmp_path, dtype, tolerance):
    results = []
    for kernels in ("", "onednn"):
        path = tmp_path / f"{kernels or 'default'}.npz"
        environ = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_COMPILATION_CACHE")}
        command = [sys.executable, "-c", PRODUCTS, str(tmp_path / "cache"), str(path), dtype]
        subprocess.run(command, check=True, env={**environ, KERNELS: kernels, "JAX_PLATFORMS": "cpu"})
        results.append(np.load(path))
    for name in results[0].files:
        scale = np.abs(results[0][name]).max()
        np.testing.assert_allclose(results[1][name], results[0][name], rtol=tolerance, atol=tolerance * scale)
