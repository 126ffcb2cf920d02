"""A run goes on with other numbers of devices: same samples, same losses; every bit where the sharding is equal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from quick_compilation import forced_devices

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "train"))
import tiny_training as tiny  # noqa: E402

from protloc_jax.train.resume import ResumeRefused  # noqa: E402
from protloc_jax.xla_flags import append_cpu_flags  # noqa: E402

BATCH = 8
LEGS = {
    "quick": (4, ("8:1", "2:2", "1:1")),
    "long": (4, ("8:1", "4:1", "2:2", "1:1", "8:2")),
}


def legs_of(folder: Path, form: str) -> dict:
    each, legs = LEGS[form]
    environ = forced_devices(8)
    append_cpu_flags(environ)
    command = [sys.executable, str(HERE / "device_counts.py"), str(folder), str(each), *legs]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(found: dict, form: str) -> None:
    each, legs = LEGS[form]
    total = each * len(legs)
    whole, parts = found["whole"], found["legs"]
    assert [part["devices"] for part in parts] == [int(leg.split(":")[0]) for leg in legs]
    assert [part["exit"] for part in parts] == [75] * (len(legs) - 1) + [0]
    assert [part["position"] for part in parts] == [BATCH * each * n for n in range(1, len(legs) + 1)]
    # Parameters were split where the mesh says so, and only there.
    for part, leg in zip(parts, legs, strict=True):
        assert (part["split"] > 3) == (leg.split(":")[1] != "1")
    ids, losses = ({k: v for part in parts for k, v in part[name].items()} for name in ("ids", "losses"))
    assert sorted(map(int, losses)) == list(range(1, total + 1))
    assert ids == whole["ids"]
    flat = [tuple(address) for step in sorted(ids, key=int) for address in ids[step]]
    assert flat == [divmod(n, tiny.EXAMPLES) for n in range(BATCH * total)]
    ours, theirs = ([values[str(n)] for n in range(1, total + 1)] for values in (losses, whole["losses"]))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert np.ptp(theirs) > 1e-3
    # As many devices as before, split alike: every bit, also of the moments.
    assert ours[:each] == theirs[:each]
    assert found["same"]["losses"] == {str(n): theirs[n - 1] for n in range(each + 1, total + 1)}
    assert found["equal"]["same"]
    # The comparison can tell: sums over one device round differently from sums over eight.
    assert not found["equal"]["legs"]


def test_eight_two_one(tmp_path):
    check(legs_of(tmp_path, "quick"), "quick")


@pytest.mark.slow
def test_eight_four_two_one_eight_over_twenty_steps(tmp_path):
    """Slow: five meshes compile."""
    check(legs_of(tmp_path, "long"), "long")


def test_another_global_batch_is_refused_unless_forced(tmp_path):
    out = tmp_path / "run"
    tiny.train(out, "optim.steps=7")
    with pytest.raises(ResumeRefused, match=r"optim\.batch: 4 -> 8.*--force-resume"):
        tiny.train(out, "optim.batch=8", "optim.steps=7", loader_factory=lambda start: tiny.batches(start, size=8))
    ids = []

    def batches(start):
        for batch in tiny.batches(start, size=8):
            ids.append(batch.example.tolist())
            yield batch

    forced = tiny.train(out, "optim.batch=8", "optim.steps=8", loader_factory=batches, force_resume=True)
    assert forced.step == 8
    # It goes on behind the last image that was seen, whatever the batches were.
    assert ids[0] == [list(divmod(n, tiny.EXAMPLES)) for n in range(7 * 4, 7 * 4 + 8)]
