"""Names on the hub: what is asked of its client, and what a user is told when it cannot be had. No network."""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

from protloc_jax.convert.weight_file import WeightsRefused, open_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class RepositoryNotFoundError(Exception):
    pass


class GatedRepoError(RepositoryNotFoundError):
    pass


class RevisionNotFoundError(Exception):
    pass


class LocalEntryNotFoundError(FileNotFoundError):
    pass


class FakeHub(ModuleType):
    """The two functions of huggingface_hub that are used, over a folder that stands for the server."""

    def __init__(self, root: Path):
        super().__init__("huggingface_hub")
        self.server, self.cache = root / "server", root / "cache" / COMMIT
        self.server.mkdir()
        self.fault: Exception | None = None
        self.asked: list[tuple[str, str | None, bool]] = []

    def list_repo_files(self, repo_id: str, *, revision: str | None = None) -> list[str]:
        if self.fault:
            raise self.fault
        return sorted(path.name for path in self.server.iterdir())

    def snapshot_download(self, repo_id, *, revision=None, allow_patterns, local_files_only=False) -> str:
        self.asked.append((repo_id, revision, local_files_only))
        if local_files_only:
            if not self.cache.exists():
                raise LocalEntryNotFoundError("nothing there\nsecond line")
            return str(self.cache)
        self.cache.mkdir(parents=True, exist_ok=True)
        for path in self.server.iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                (self.cache / path.name).write_bytes(path.read_bytes())
        return str(self.cache)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FakeHub:
    fake = FakeHub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def fill(hub: FakeHub) -> None:
    save_file({"w": np.arange(3.0)}, hub.server / "model.safetensors")
    (hub.server / "config.json").write_text('{"model_type": "dinov2"}')
    for name in ("pytorch_model.bin", "modeling.py", "README.md", "tf_model.h5", "training_args.bin"):
        (hub.server / name).write_bytes(b"x")


def test_only_json_and_one_set_of_weights_is_fetched(hub):
    fill(hub)
    file = open_weights("hf://facebook/dinov2-small")
    assert sorted(path.name for path in hub.cache.iterdir()) == ["config.json", "model.safetensors"]
    assert file.tensors["w"].read().tolist() == [0, 1, 2]
    assert file.facts == {
        "config": {"model_type": "dinov2"},
        "hub": {"id": "facebook/dinov2-small", "revision": "main", "commit": COMMIT},
    }
    open_weights(Path("hf://facebook/dinov2-small@refs/pr/3"))
    assert hub.asked == [("facebook/dinov2-small", None, False), ("facebook/dinov2-small", "refs/pr/3", False)]


def test_shards_come_with_their_index(hub):
    save_file({"w": np.arange(3.0)}, hub.server / "model-00001-of-00001.safetensors")
    (hub.server / "model.safetensors.index.json").write_text(
        '{"weight_map": {"w": "model-00001-of-00001.safetensors"}}'
    )
    (hub.server / "pytorch_model-00001-of-00001.bin").write_bytes(b"x")
    assert open_weights("hf://a/b").tensors["w"].read().tolist() == [0, 1, 2]
    assert len(list(hub.cache.iterdir())) == 2


def test_without_a_connection_the_cache_is_used_and_a_missing_one_is_told(hub):
    fill(hub)
    hub.fault = ConnectionError("no route")
    with pytest.raises(WeightsRefused, match="'hf://a/b' is not in the local cache, and the hub cannot be reached"):
        open_weights("hf://a/b")
    hub.fault = None
    open_weights("hf://a/b")
    hub.fault = ConnectionError("no route")
    assert open_weights("hf://a/b").facts["hub"]["commit"] == COMMIT
    assert [offline for _, _, offline in hub.asked] == [True, False, True]


def test_what_the_hub_refuses_is_told_in_one_sentence(hub):
    for fault, message in (
        (RepositoryNotFoundError("404"), "does not exist on the hub, or is private"),
        (GatedRepoError("403"), "is gated: accept its terms"),
        (RevisionNotFoundError("404"), "has no such revision"),
    ):
        hub.fault = fault
        with pytest.raises(WeightsRefused, match=message) as raised:
            open_weights("hf://a/b")
        assert "\n" not in str(raised.value)
    assert not hub.asked


def test_a_repository_without_known_weights_and_names_that_are_none_are_refused(hub):
    (hub.server / "flax_model.msgpack").write_bytes(b"x")
    with pytest.raises(WeightsRefused, match=r"has none of model\.safetensors.* It has flax_model\.msgpack"):
        open_weights("hf://a/b")
    for address in ("hf://a", "hf://a/b/c", "hf://../b@", "hf://a/b?x", "hf://"):
        with pytest.raises(WeightsRefused, match="no name on the hub"):
            open_weights(address)


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsRefused, match=r"pip install 'protloc-jax\[hub\]'"):
        open_weights("hf://a/b")


def test_the_real_client_finds_its_cache_without_a_connection(tmp_path):
    """Its signatures, the layout of its cache, and its own errors; offline by its own switch, so nothing is asked."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is optional: protloc-jax[hub]")
    repository = tmp_path / "hub" / "models--a--b"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save_file({"w": np.arange(3.0)}, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text("{}")
    code = (
        "from protloc_jax.convert.weight_file import WeightsRefused, open_weights\n"
        "print(open_weights('hf://a/b').facts['hub'])\n"
        "for name in ('hf://a/c', 'hf://a/b@v2'):\n"
        "    try: open_weights(name)\n"
        "    except WeightsRefused as error: print(error)\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, missing, revision = done.stdout.splitlines()
    assert found == str({"id": "a/b", "revision": "main", "commit": COMMIT})
    assert missing.startswith("'hf://a/c' is not in the local cache")
    assert revision.startswith("'hf://a/b@v2' is not in the local cache")
