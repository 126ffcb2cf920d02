"""Views on eight forced devices: the same crops as on one, and nothing sent between devices."""

from __future__ import annotations

import subprocess
import sys

from quick_compilation import forced_devices

PROGRAM = """
import re
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from protloc_jax.channels import parse
from protloc_jax.views import ViewsConfig, make_views

assert len(jax.devices()) == 8
mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
over = P(("data", "fsdp"))
sharding = NamedSharding(mesh, over)
keys = jax.random.split(jax.random.key(0), 8)
config = ViewsConfig("ours", global_size=12, local_size=8, n_local=2, warp=0.5)
views = make_views(config, parse("microtubules,protein,nucleus,er"))
images = np.random.default_rng(0).integers(0, 255, (8, 40, 32, 4)).astype(np.uint8)
one = jax.jit(views)(images, keys)
given = jax.device_put((images, keys), sharding)
program = jax.jit(views, out_shardings=sharding).lower(*given).compile()
sent = re.findall(r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", program.as_text())
assert not sent, sent
mapped = jax.jit(jax.shard_map(views, mesh=mesh, in_specs=over, out_specs=over))
for many in (program(*given), mapped(*given)):
    for name in ("global_", "local"):
        a, b = np.asarray(getattr(one, name)), np.asarray(getattr(many, name))
        assert np.abs(a).max() > 1
        np.testing.assert_allclose(a, b, atol=2e-4, err_msg=name)  # the sampled position of a warp is rounded
print("same views")
"""


def test_eight_devices_make_the_views_of_one():
    environment = forced_devices(8) | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "same views" in done.stdout
