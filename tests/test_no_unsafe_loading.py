"""No file that comes from elsewhere can run code: nothing in the package could, and hostile files leave no trace."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from protloc_jax import images
from protloc_jax.config import load_file
from protloc_jax.datasets import folder
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.problems import DatasetError

PACKAGE = Path(__file__).parent.parent / "protloc_jax"
# Calls that run what a file says. `pickle.dumps` is not among them: it only writes.
RUNS_CODE = {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "torch.load", "yaml.load", "dill.load"}
RUNS_CODE |= {"yaml.unsafe_load", "yaml.full_load", "marshal.load", "marshal.loads", "shelve.open", "pd.read_pickle"}
RUNS_CODE |= {"pandas.read_pickle", "cloudpickle.load", "cloudpickle.loads", "eval", "exec", "os.system"}


def calls(tree: ast.AST):
    """(dotted name, node) of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def unsafe(source: str) -> list[str]:
    found = []
    for name, node in calls(ast.parse(source)):
        arguments = {k.arg: k.value for k in node.keywords}
        allowed = arguments.get("allow_pickle")
        if name in RUNS_CODE or (allowed is not None and not (isinstance(allowed, ast.Constant) and not allowed.value)):
            found.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
        if name in ("np.load", "numpy.load") and allowed is None:
            found.append(f"line {node.lineno}: np.load without allow_pickle=False")
        if name.startswith("subprocess.") and "shell" in arguments:
            found.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
    return found


def test_the_search_finds_what_it_looks_for():
    bad = "import pickle\npickle.load(f)\nnp.load(f, allow_pickle=True)\nnp.load(f)\neval(text)\nyaml.load(f)\n"
    assert len(unsafe(bad)) == 5
    assert not unsafe("np.load(f, allow_pickle=False)\nmodel.eval()\npickle.dumps(x)\nyaml.safe_load(f)\n")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_call_in_the_package_runs_what_a_file_says(path):
    text = path.read_text()
    assert not unsafe(text)
    for word in ("allow_pickle=True", "pickle.load", "yaml.load(", "weights_only=False"):
        assert word not in text


class Canary:
    """Unpickling this leaves a folder behind."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


def hostile_files(folder_: Path, canary: Path) -> list[str]:
    """Pickles under every name that an image, a mask or a table can have."""
    payload = pickle.dumps(Canary(canary))
    array = np.empty(1, object)
    array[0] = Canary(canary)
    names = [f"p{suffix}" for suffix in (".png", ".tif", ".tiff", ".jpg", ".ome.tif", ".nd2", ".czi", ".lif", ".npy")]
    for name in names:
        (folder_ / name).write_bytes(payload)
    np.save(folder_ / "object.npy", array, allow_pickle=True)
    (folder_ / "object.tif").write_bytes((folder_ / "object.npy").read_bytes())
    (folder_ / "tag.png").write_text(f"!!python/object/apply:os.mkdir ['{canary}']\n")
    return [*names, "object.npy", "object.tif", "tag.png"]


def test_images_that_are_pickles_are_refused_before_any_byte_runs(tmp_path, canary):
    raw = tmp_path / "raw"
    raw.mkdir()
    names = hostile_files(raw, canary)
    for name in names:
        for function in (images.header, images.read):
            with pytest.raises(images.ImageError, match=name):
                function(raw / name)
    (tmp_path / "cells.csv").write_text("path\n" + "".join(f"raw/{name}\n" for name in names))
    with pytest.raises(DatasetError, match=rf"unreadable images \({len(names)}\)"):
        folder.prepare(FolderConfig(path=str(tmp_path / "cells.csv"), channels="gfp"))
    with pytest.raises(DatasetError, match="unreadable images"):
        folder.prepare(FolderConfig(path=str(raw), channels="gfp"))
    assert not canary.exists()


def test_masks_and_tables_that_are_pickles_are_refused(tmp_path, canary):
    from PIL import Image as Pillow

    Pillow.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    (tmp_path / "m.png").write_bytes(pickle.dumps(Canary(canary)))
    (tmp_path / "cells.csv").write_text("path,mask\na.png,m.png\n")
    with pytest.raises(DatasetError, match=r"m\.png"):
        folder.prepare(FolderConfig(path=str(tmp_path / "cells.csv"), channels="gfp", masks="mask"))
    for suffix in ("csv", "tsv", "parquet"):
        (tmp_path / f"t.{suffix}").write_bytes(pickle.dumps(Canary(canary)))
        with pytest.raises(DatasetError, match=rf"t\.{suffix}"):
            folder.prepare(FolderConfig(path=str(tmp_path / f"t.{suffix}"), channels="gfp"))
    assert not canary.exists()


def test_saved_options_are_data_and_not_code(tmp_path, canary):
    text = f'{{"path": "__import__(\'os\').mkdir(\'{canary}\')", "channels": "gfp"}}'
    (tmp_path / "a.json").write_text(text)
    assert load_file(tmp_path / "a.json", FolderConfig).path.startswith("__import__")
    (tmp_path / "b.json").write_text(f"!!python/object/apply:os.mkdir ['{canary}']")
    with pytest.raises(ValueError, match=r"b\.json"):
        load_file(tmp_path / "b.json", FolderConfig)
    assert not canary.exists()


def test_the_canary_works(canary):
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()
