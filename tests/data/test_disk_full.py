"""A full disk: told in bytes, nothing half left behind, and packing goes on when there is space."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from small_records import contents, pack

from protloc_jax.data import disk_space

Usage = namedtuple("Usage", "total used free")
HERE = Path(__file__).parent


def test_foreseen_at_the_first_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: Usage(10**6, 0, 8_000))
    with pytest.raises(OSError, match=r"packing these 50 records needs about \d+\.\d KB, 8.0 KB are free") as caught:
        pack(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.glob("shard-*"))


def test_goes_on_when_there_is_space_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(pack(tmp_path / "whole" / "set"))
    free = iter([10**6, 10**6, 10])
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: Usage(10**6, 0, next(free)))
    with pytest.raises(OSError, match="make space and run again, finished shards are kept"):
        pack(tmp_path / "set")
    assert len(list((tmp_path / "set").glob("shard-*"))) == 2
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.undo()
    pack(tmp_path / "set")
    assert contents(tmp_path / "set") == whole


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[2])
from functools import partial
from pathlib import Path
from small_records import image, manifest
from protloc_jax.data import disk_space, records
class Blind:  # no foresight: the write itself must fail
    @staticmethod
    def disk_usage(_): return type("U", (), {"free": 2**40})
disk_space.shutil = Blind
try:
    records.write(sys.argv[1] + "/set", manifest(40), partial(image, height=256, width=256), shard_size=4, workers=0)
except OSError as error:
    print("errno", error.errno, error)
print("left", sorted(p.name for p in Path(sys.argv[1]).rglob("*") if p.is_file()))
"""


def test_a_disk_that_really_is_full(tmp_path: Path) -> None:
    """On a 2 MB file system, without the foresight, the failing write is told as what it is."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (util-linux) for a small file system of its own")
    command = f'mount -t tmpfs -o size=2m tmpfs {tmp_path} && exec "$@"'
    run = ["unshare", "--map-root-user", "--mount", "sh", "-c", command, "sh"]
    found = subprocess.run(
        [*run, sys.executable, "-c", SCRIPT, str(tmp_path), str(HERE)], capture_output=True, text=True
    )
    if "unshare:" in found.stderr or "mount:" in found.stderr:
        pytest.skip(f"this machine does not allow a private file system: {found.stderr.strip()}")
    assert f"errno {errno.ENOSPC}" in found.stdout, found.stderr
    assert "needs about" in found.stdout
    left = found.stdout.split("left ")[1]
    assert ".tmp" not in left
    assert "shard-00000-of-00010.array_record" in left
    assert "dataset.json" not in left


def test_a_writer_that_fails_for_another_reason_says_so(tmp_path: Path) -> None:
    def close() -> None:
        raise RuntimeError("write() failed: Input/output error")

    with pytest.raises(OSError, match="Input/output error") as caught:
        disk_space.Space(tmp_path, 3).translate(close)
    assert caught.value.errno == errno.EIO
