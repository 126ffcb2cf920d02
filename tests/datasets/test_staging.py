"""Remote files: fetched once, whole, verified, within a limit, again after passing errors, from nowhere else."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import random
import threading
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from small_folders import config, pixels, table_of

from protloc_jax.data import records
from protloc_jax.datasets import folder, staging
from protloc_jax.datasets.addresses import check_address, scheme_of, without_file_scheme
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.staging import StagingError, Store, stage


@pytest.fixture
def memory():
    """An empty in-memory object store."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def put(memory, local: Path, address: str) -> None:
    """Copy a local folder to the store."""
    for path in local.rglob("*"):
        if path.is_file():
            memory.pipe(f"{address}/{path.relative_to(local)}", path.read_bytes())


def store(tmp_path, **options) -> Store:
    return Store(tmp_path / "stage", options.pop("limit", 10**6), **options)


def held(tmp_path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "stage").rglob("*") if p.is_file())


def test_a_table_and_images_of_an_object_store(tmp_path, memory):
    """The same records, bit for bit, as from the local folder; a second run fetches nothing."""
    table = table_of(tmp_path / "raw", 4)
    put(memory, tmp_path / "raw", "/bucket/screen")
    here = folder.pack(config(table), tmp_path / "here", workers=0)
    options = {"stage": str(tmp_path / "stage"), "stage_limit_gb": 0.001}
    remote = config("memory://bucket/screen/cells.csv", **options)
    there = folder.pack(remote, tmp_path / "there", workers=0)
    assert [s.sha256 for s in there.shards] == [s.sha256 for s in here.shards]
    with records.open(tmp_path / "there") as opened:
        assert opened.manifest.table["source"].to_list()[2] == "images/2.tif"
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "stage").rglob("*")}
    folder.prepare(remote)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "stage").rglob("*")} == times
    assert len(held(tmp_path)) == 2 * 5


def test_a_remote_folder_with_a_pattern(tmp_path, memory):
    import imagecodecs

    for c, word in enumerate(("gfp", "rfp")):
        for i in range(2):
            png = imagecodecs.png_encode(np.ascontiguousarray(pixels(i)[..., c]))
            memory.pipe(f"/b/plate1/A0{i}_{word}.png", png)
    memory.pipe("/b/plate1/notes.txt", b"x")
    cfg = config("memory://b/", pattern="{plate}/{well}_{channel}.png", stage=str(tmp_path / "stage"))
    found = folder.prepare(cfg)
    assert found.manifest.ids == ("plate1_A00", "plate1_A01")
    np.testing.assert_array_equal(found.images(1), pixels(1))
    assert any("1 files are no images" in note for note in found.notes)
    memory.pipe("/c/notes.txt", b"x")
    with pytest.raises(DatasetError, match="the data set is empty"):
        folder.prepare(config("memory://c", stage=str(tmp_path / "stage")))
    with pytest.raises(FileNotFoundError, match="memory://d: no such folder"):
        folder.prepare(config("memory://d", stage=str(tmp_path / "stage")))


def test_a_local_table_with_addresses_needs_leave(tmp_path, memory):
    table_of(tmp_path / "raw", 2)
    put(memory, tmp_path / "raw", "/bucket")
    table = tmp_path / "urls.csv"
    table.write_text(
        "FileName_gfp,PathName_gfp,Metadata_Plate,Metadata_Well,Metadata_Site\n"
        "0.tif,memory://bucket/images,p,A1,1\n1.tif,memory://bucket/images,p,A1,2\n"
    )
    with pytest.raises(DatasetError) as caught:
        folder.prepare(config(table, "gfp"))
    assert "refused paths (2)" in str(caught.value)
    assert "fetch_from=memory://bucket/ permits" in str(caught.value)
    options = {"stage": str(tmp_path / "stage"), "fetch_from": ("memory://bucket/images",)}
    with pytest.raises(DatasetError, match="every file has 2 channels"):
        folder.prepare(config(table, "gfp", **options))
    table.write_text(table.read_text().replace("1.tif", "7.tif"))
    with pytest.raises(DatasetError, match=r"urls.csv line 3: no file memory://bucket/images/7.tif"):
        folder.prepare(config(table, "gfp", **options))
    for elsewhere in ("memory://bucket/images/../secret.tif", "memory://bucket/imagesX/1.tif", "memory://other/1.tif"):
        table.write_text(f"path\n{elsewhere}\n")
        with pytest.raises(DatasetError, match=r"is an address; fetch_from=|is not the plain address"):
            folder.prepare(config(table, **options))
    assert held(tmp_path) == sorted(["0.tif", "1.tif", "about.json", "about.json"])


def test_a_root_of_another_machine_becomes_a_remote_one(tmp_path, memory):
    table_of(tmp_path / "raw", 2)
    put(memory, tmp_path / "raw", "/bucket")
    table = tmp_path / "t.csv"
    table.write_text("path\n/cluster/screen/images/0.tif\n/cluster/screen/images/1.tif\n")
    found = folder.prepare(
        config(table, root="memory://bucket", path_prefix=("/cluster/screen",), stage=str(tmp_path / "stage"))
    )
    np.testing.assert_array_equal(found.images(1), pixels(1))
    with pytest.raises(
        DatasetError, match=r"absolute path '/cluster/screen/images/0\.tif'; paths must be relative to memory"
    ):
        folder.prepare(config(table, root="memory://bucket", stage=str(tmp_path / "stage")))


@pytest.mark.parametrize(
    "text",
    ["ssh://host/a", "zip://a.tif::s3://b/a.zip", "s3://b/../c", "s3://b/%2e%2e/c", "s3://", "memory://a\nb", "s3:///"],
)
def test_addresses_that_are_refused(text):
    with pytest.raises(DatasetError):
        check_address(text)


def test_schemes():
    assert scheme_of("S3://b/a") == "s3"
    assert [scheme_of(t) for t in ("a/b.tif", "C:\\a", "file:///a", "a:b")] == [""] * 4
    assert without_file_scheme("file:///a%20b.tif") == "/a b.tif"
    assert without_file_scheme("file:/a.tif") == "/a.tif"
    assert without_file_scheme("a%20b.tif") == "a%20b.tif"
    assert check_address("s3://b/a/") == "s3://b/a"


def test_changed_and_damaged_copies_are_fetched_again(tmp_path, memory):
    memory.pipe("/b/a.tif", b"first")
    address = "memory://b/a.tif"
    (path,) = stage([address], store(tmp_path)).values()
    assert path.read_bytes() == b"first"
    path.write_bytes(b"fXrst")
    stage([address], store(tmp_path))
    assert path.read_bytes() == b"first"
    memory.pipe("/b/a.tif", b"other")
    stage([address], store(tmp_path))
    assert path.read_bytes() == b"other"
    path.with_name("about.json").write_text("{")
    path.unlink()
    stage([address], store(tmp_path))
    assert path.read_bytes() == b"other"


def test_the_limit_counts_what_is_there(tmp_path, memory):
    for name in "abc":
        memory.pipe(f"/b/{name}", b"x" * 1000)
    with pytest.raises(DatasetError, match=r"3 remote files of 3.0 KB .* holds 0 bytes; its limit is 2.5 KB"):
        stage([f"memory://b/{n}" for n in "abc"], store(tmp_path, limit=2500))
    assert not (tmp_path / "stage").exists()
    assert len(stage(["memory://b/a"], store(tmp_path, limit=2500))) == 1
    with pytest.raises(DatasetError, match=r"2 remote files .* holds 1.\d KB"):
        stage([f"memory://b/{n}" for n in "abc"], store(tmp_path, limit=2500))


class Flaky:
    """The memory store behind a bad line: the first `failures` downloads of each file fail or bring something else."""

    def __init__(self, memory, failures: int, error: Exception | None = None, cut: int | None = None, **info):
        self.memory, self.failures, self.error, self.cut, self.extra = memory, failures, error, cut, info
        self.tries: dict[str, int] = {}

    def _strip_protocol(self, address):
        return self.memory._strip_protocol(address)

    def info(self, path):
        return {**self.memory.info(path), **self.extra}

    def get_file(self, path, local, callback):
        self.tries[path] = self.tries.get(path, 0) + 1
        data = self.memory.cat(path)
        if self.tries[path] <= self.failures:
            Path(local).write_bytes(data[:3])
            if self.error is not None:
                raise self.error
            data = data[: self.cut] if self.cut is not None else data + b"more"
        callback.relative_update(len(data))
        Path(local).write_bytes(data)


class Busy(Exception):
    status = 503


class Denied(Exception):
    status = 403


@pytest.mark.parametrize(
    ("options", "good"),
    [
        ({"failures": 2, "error": ConnectionResetError("reset")}, True),
        ({"failures": 2, "error": TimeoutError()}, True),
        ({"failures": 3, "error": Busy("slow down")}, True),
        ({"failures": 2, "cut": 5}, True),
        ({"failures": 1}, True),
        ({"failures": 9, "error": Busy("slow down")}, False),
        ({"failures": 9, "cut": 5}, False),
        ({"failures": 1, "error": Denied("no")}, False),
        ({"failures": 1, "error": PermissionError("no")}, False),
    ],
)
def test_passing_errors_are_tried_again(tmp_path, memory, monkeypatch, options, good):
    memory.pipe("/b/a", b"0123456789")
    flaky = Flaky(memory, **options)
    monkeypatch.setattr(staging, "_file_system", lambda scheme, anonymous: flaky)
    waits: list[float] = []
    found = stage(["memory://b/a"], store(tmp_path, attempts=4, sleep=waits.append, random=random.Random(3)))
    (result,) = found.values()
    passing = not isinstance(options.get("error"), Denied | PermissionError)
    if good:
        assert result.read_bytes() == b"0123456789"
        assert len(waits) == options["failures"]
    else:
        assert isinstance(result, StagingError)
        assert "memory://b/a" in str(result)
        assert len(waits) == (3 if passing else 0)
        assert held(tmp_path) == []
    assert all(0 <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))
    assert len(set(waits)) == len(waits)


def test_an_md5_that_the_store_states_is_checked(tmp_path, memory, monkeypatch):
    memory.pipe("/b/a", b"0123456789")
    for content, good in ((b"0123456789", True), (b"0123456780", False)):
        stated = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        flaky = Flaky(memory, 0, md5Hash=stated)
        monkeypatch.setattr(staging, "_file_system", lambda scheme, anonymous, f=flaky: f)
        (result,) = stage(["memory://b/a"], store(tmp_path / stated[:4], sleep=lambda _: None)).values()
        assert isinstance(result, Path) == good
        assert good or "MD5" in str(result)


def test_a_store_that_states_no_size_cannot_fill_the_disk(tmp_path, memory, monkeypatch):
    memory.pipe("/b/a", b"x" * 5000)
    monkeypatch.setattr(staging, "_file_system", lambda scheme, anonymous: Flaky(memory, 0, size=None))
    with pytest.raises(StagingError, match=r"beyond the limit of 4\.0 KB"):
        stage(["memory://b/a"], store(tmp_path, limit=4000))
    assert held(tmp_path) == []


def test_an_interrupted_call_goes_on_where_it_stopped(tmp_path, memory, monkeypatch):
    for name in "abcd":
        memory.pipe(f"/b/{name}", name.encode() * 10)
    addresses = [f"memory://b/{n}" for n in "abcd"]
    flaky = Flaky(memory, 0)
    get = flaky.get_file

    def killed(path, local, callback):
        if path.endswith("c"):
            Path(local).write_bytes(b"half")
            raise KeyboardInterrupt
        get(path, local, callback)

    monkeypatch.setattr(flaky, "get_file", killed)
    monkeypatch.setattr(staging, "_file_system", lambda scheme, anonymous: flaky)
    with pytest.raises(KeyboardInterrupt):
        stage(addresses, store(tmp_path), workers=1)
    assert {"a", "b"} <= set(held(tmp_path))
    assert not any(name.endswith(".part") or name == "c" for name in held(tmp_path))
    flaky.get_file = get
    flaky.tries.clear()
    found = stage(addresses, store(tmp_path), workers=1)
    assert "/b/a" not in flaky.tries
    assert [p.read_bytes() for p in found.values()] == [n.encode() * 10 for n in "abcd"]


def test_a_missing_package_is_named_with_the_extra(tmp_path, monkeypatch):
    def no_package(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", no_package)
    with pytest.raises(DatasetError, match=r"pip install 'protloc-jax\[remote\]', or pip install s3fs"):
        stage(["s3://b/a"], store(tmp_path))


def test_names_of_copies_are_harmless(tmp_path):
    place = store(tmp_path).place("https://host/x/..%2f..%2fetc%2fpasswd?a=b/c")
    assert place.resolve().is_relative_to(tmp_path / "stage")
    assert place.name == "c"
    assert store(tmp_path).place("s3://b/.hidden").name == "hidden"
    assert store(tmp_path).place("s3://b/a.tif") != store(tmp_path).place("s3://c/a.tif")


def test_records_are_not_written_to_addresses(tmp_path):
    table = table_of(tmp_path, 1)
    for out in ("s3://bucket/records", Path("gs://bucket/records"), "memory://x"):
        with pytest.raises(ValueError, match="records are written to local or mounted folders only"):
            folder.pack(config(table), out)
    with pytest.raises(ValueError, match="copies of remote files need a local folder"):
        config(table, stage="s3://b/stage")
    with pytest.raises(ValueError, match="fetch_from"):
        config(table, fetch_from=("ssh://host",))


class Handler(http.server.SimpleHTTPRequestHandler):
    """A server that is overloaded at the first request of each file."""

    seen: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        if self.path in self.seen:
            return super().do_GET()
        self.seen.add(self.path)
        return self.send_error(503)

    def log_message(self, *_: object) -> None:
        pass


def test_over_http(tmp_path):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed; pip install 'protloc-jax[remote]'")
    table_of(tmp_path / "raw", 3)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "raw"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        options = {"stage": str(tmp_path / "stage"), "groups": ("gene",)}
        found = folder.prepare(config(f"{address}/cells.csv?signed=yes", **options))
        np.testing.assert_array_equal(found.images(2), pixels(2))
        (tmp_path / "raw" / "images" / "1.tif").unlink()
        with pytest.raises(DatasetError, match=r"cells.csv line 3: no file http://127.0.0.1:\d+/images/1.tif"):
            folder.prepare(config(f"{address}/cells.csv", **options))
    finally:
        server.shutdown()
        server.server_close()
