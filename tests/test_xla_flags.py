"""The compiler flag: only where it is needed, never over the user's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from protloc_jax.xla_flags import YNN_FLAG, append_cpu_flags


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
