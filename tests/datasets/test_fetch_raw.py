"""Raw files are fetched once, whole, under their own names."""

from __future__ import annotations

import csv
import functools
import hashlib
import http.server
import threading

import fsspec
import pytest
from test_opencell import QUIET, TARGETS, ensg, name, save, tables

from protloc_jax.config import ConfigError
from protloc_jax.datasets.fetch_raw import FetchConfig, fetch_raw
from protloc_jax.datasets.opencell import OpenCellConfig, read_opencell
from protloc_jax.datasets.pack_rows import pack_fields
from protloc_jax.datasets.problems import DatasetError


@pytest.fixture
def remote(tmp_path):
    """A server's folder: three fields of two targets, one as a stack as well, and the tables."""
    root = tmp_path / "remote"
    save(root, "AAMP", 1, 10)
    save(root, "AAMP", 1, 10, "stack")
    save(root, "H1-0", 2, 12)
    save(root, "H1-0", 2, 13)
    tables(root, TARGETS[:2])
    return root


@pytest.fixture
def bucket(remote):
    system = fsspec.filesystem("memory")
    system.store.clear()
    for path in remote.rglob("*"):
        if path.is_file():
            system.pipe(f"/cell/raw/{path.relative_to(remote)}", path.read_bytes())
    yield system
    system.store.clear()


TABLE = "memory://cell/raw/opencell-localization-annotations.csv"


def fetched(raw) -> list[list[str]]:
    return list(csv.reader((raw / "fetched.csv").read_text().splitlines()))[1:]


def test_a_bucket_s_projections(remote, bucket, tmp_path):
    raw = tmp_path / "raw"
    config = FetchConfig(fetch="memory://cell/raw", fetch_tables=(TABLE,))
    notes = fetch_raw(config, raw, endings=("_proj.tif",))
    assert notes[0].startswith("4 files of")
    wanted = [name("AAMP", 1, 10), name("H1-0", 2, 12), name("H1-0", 2, 13), "opencell-localization-annotations.csv"]
    assert [row[1] for row in fetched(raw)] == wanted
    for _, path, size, digest in fetched(raw):
        data = (remote / path).read_bytes()
        assert (raw / path).read_bytes() == data
        assert (size, digest) == (str(len(data)), hashlib.sha256(data).hexdigest())
    rows = read_opencell(OpenCellConfig(), raw)
    assert rows.frame["path"].tolist() == wanted[:3]
    assert pack_fields(rows, raw, tmp_path / "out", {"split_by": ""}, QUIET).info.n == 3


def test_a_damaged_file_is_mended_and_nothing_else_is_fetched(bucket, tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    config = FetchConfig(fetch="memory://cell/raw", fetch_only=("H1-0",))
    assert "of 4 files there" in fetch_raw(config, raw)[1]
    assert len(fetched(raw)) == 2
    good = (raw / name("H1-0", 2, 12)).read_bytes()
    (raw / name("H1-0", 2, 12)).write_bytes(good[:-9] + b"different")
    (raw / name("H1-0", 2, 13)).unlink()
    taken = []
    get = type(bucket).get_file
    monkeypatch.setattr(
        type(bucket), "get_file", lambda self, path, *a, **k: taken.append(path) or get(self, path, *a, **k)
    )
    fetch_raw(config, raw)
    assert (raw / name("H1-0", 2, 12)).read_bytes() == good and (raw / name("H1-0", 2, 13)).exists()
    assert taken == [f"/cell/raw/{name('H1-0', 2, 12)}"]


def test_everything_that_cannot_be_had_is_listed(bucket, tmp_path):
    wrong = FetchConfig(fetch="memory://cell/raw", fetch_only=("H1-0", "H1-9", ensg(1), ensg(8)))
    with pytest.raises(DatasetError) as caught:
        fetch_raw(wrong, tmp_path / "raw")
    assert "names that no file has (2)" in str(caught.value) and "H1-9" in str(caught.value)
    good = f"memory://cell/raw/{name('AAMP', 1, 10)}"
    (tmp_path / "list.txt").write_text(f"# two\n{good}\nmemory://cell/raw/a/none.tif\nmemory://cell/raw/a/no.tif\n")
    with pytest.raises(DatasetError) as caught:
        fetch_raw(FetchConfig(fetch=str(tmp_path / "list.txt")), tmp_path / "raw")
    assert "files that cannot be fetched (2)" in str(caught.value)
    assert [row[1] for row in fetched(tmp_path / "raw")] == [name("AAMP", 1, 10)]  # what came is kept
    (tmp_path / "list.txt").write_text(f"{good}\nmemory://other/{name('AAMP', 1, 10)}\n")
    with pytest.raises(DatasetError, match="two addresses for one file"):
        fetch_raw(FetchConfig(fetch=str(tmp_path / "list.txt")), tmp_path / "raw")
    with pytest.raises(FileNotFoundError, match="neither an address nor a text file"):
        fetch_raw(FetchConfig(fetch="nowhere.txt"), tmp_path / "raw")
    with pytest.raises(DatasetError, match="its limit is"):
        fetch_raw(FetchConfig(fetch="memory://cell/raw", fetch_limit_gb=1e-7), tmp_path / "small")
    with pytest.raises(ConfigError, match="needs fetch"):
        FetchConfig(fetch_only=("A",))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_list_over_http(remote, tmp_path):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed; pip install 'protloc-jax[remote]'")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(remote)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "list.txt").write_text(f"{base}/{name('AAMP', 1, 10)}\n{base}/{name('H1-0', 2, 12)}\n")
        fetch_raw(FetchConfig(fetch=str(tmp_path / "list.txt")), tmp_path / "raw")
        for path in (name("AAMP", 1, 10), name("H1-0", 2, 12)):
            assert (tmp_path / "raw" / path).read_bytes() == (remote / path).read_bytes()
    finally:
        server.shutdown()
        server.server_close()
