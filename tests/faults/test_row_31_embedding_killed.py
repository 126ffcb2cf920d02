"""Fault row 31: an embedding killed halfway goes on at the next part and ends with the table of one never killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
import tiny_training as tiny

from protloc_jax.cli.main import main
from protloc_jax.data import manifest as manifests
from protloc_jax.data import read as records_file
from protloc_jax.data import records as writing
from protloc_jax.eval import embed as rooms
from protloc_jax.eval.features import read

N = 102


def image(row: int) -> np.ndarray:
    return np.random.default_rng([5, row]).integers(0, 250, (8, 8, 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with records, a run of a few steps and the feature table of an embedding that nothing disturbed."""
    out = tmp_path_factory.mktemp("embedded")
    table = pd.DataFrame({"id": [f"cell{i * 7 % N}" for i in range(N)]})
    writing.write(out / "records", manifests.make(table, tiny.CHANNELS), image, shard_size=40, workers=0)
    tiny.train(out / "run", "optim.steps=2", "optim.warmup_epochs=0")
    embed = ["embed", "--weights", str(out / "run"), "--records", str(out / "records")]
    assert main([*embed, "--out", str(out / "trained.h5ad"), "--batch", "16"]) == 0
    return out


def test_a_killed_embedding_goes_on_and_ends_with_the_same_bytes(made, monkeypatch):
    again = made / "again.parquet"
    arguments = ["embed", "--weights", str(made / "run"), "--records", str(made / "records"), "--out", str(again)]
    arguments += ["--part", "40", "--batch", "16"]
    whole, count = rooms._write_whole, []

    def dying(file, x):
        count.append(file)
        if len(count) == 2:
            raise KeyboardInterrupt
        whole(file, x)

    with monkeypatch.context() as patch:
        patch.setattr(rooms, "_write_whole", dying)
        assert main(arguments) == 130
    assert [p.name for p in sorted((made / "again.parquet.parts").glob("*.npy"))] == ["part-00000.npy"]
    kept = (made / "again.parquet.parts" / "part-00000.npy").stat().st_mtime_ns
    assert main([*arguments[:-1], "16", "--pooling", "mean"]) == 2, "other settings must not mix with these parts"
    assert (made / "again.parquet.parts" / "part-00000.npy").stat().st_mtime_ns == kept
    assert main(arguments) == 0
    np.testing.assert_array_equal(read(again).x, read(made / "trained.h5ad").x)


EMBED = """
import os, signal, sys
from protloc_jax.cli.main import main
from protloc_jax.eval import embed

whole, encode = embed._write_whole, embed._encode

def dying(file, x):
    if file.name == sys.argv[1]:
        file.with_suffix(".tmp").write_bytes(x.tobytes()[: x.nbytes // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(file, x)

def counted(encoder, records, rows, *more, **options):
    print("encoded", len(rows))
    return encode(encoder, records, rows, *more, **options)

embed._write_whole, embed._encode = dying, counted
sys.exit(main(sys.argv[2:]))
"""


def embed_in_a_process(*words: str, dying_at: str = "") -> subprocess.CompletedProcess[str]:
    """`protloc embed` in a process of its own, killed in the middle of writing the part `dying_at`.

    All that is compared bit by bit is made this way: in the tests' own process XLA's flags are those of whichever test
    came first.
    """
    command = [sys.executable, "-c", EMBED, dying_at, "embed", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_killed_halfway_and_resumed_equals_one_shot(made):
    """SIGKILL in the middle of writing a part, half of the images done; the same command then ends with every id once,
    in the records' order, and with the bytes of an embedding that was never interrupted."""
    out = {name: made / f"{name}.parquet" for name in ("killed", "oneshot")}
    words = ["--weights", str(made / "run"), "--records", str(made / "records"), "--batch", "16"]
    killed = [*words, "--part", "10", "--out", str(out["killed"])]
    done = embed_in_a_process(*killed, dying_at="part-00005.npy")
    assert done.returncode == -signal.SIGKILL, done.stderr
    parts = made / "killed.parquet.parts"
    kept = {file.name: file.stat().st_mtime_ns for file in parts.glob("*.npy")}
    assert sorted(kept) == [f"part-0000{i}.npy" for i in range(5)], "50 of 102 images"
    assert (parts / "part-00005.tmp").is_file()
    assert not out["killed"].exists()

    done = embed_in_a_process(*killed)
    assert done.returncode == 0, done.stderr
    asked = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("encoded ")]
    assert asked == [10, 10, 10, 10, 10, 2], "only what was missing is encoded again"
    assert not parts.exists()
    assert embed_in_a_process(*words, "--out", str(out["oneshot"])).returncode == 0
    resumed, oneshot = read(out["killed"]), read(out["oneshot"])
    with records_file.open(made / "records") as records:
        assert resumed.obs["id"].tolist() == list(records.manifest.ids)
    assert resumed.obs["id"].is_unique
    assert resumed.x.tobytes() == oneshot.x.tobytes()
    assert out["killed"].read_bytes() == out["oneshot"].read_bytes()
