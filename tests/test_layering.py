"""The house's floors: a file imports from lower ranks, or acyclically from its own folder; data never loads jax."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "protloc_jax"

# Room -> rank. A room is a folder or a top-level file of the package. `simulate` stands below `datasets`, which packs
# what it renders; `views` stands below `model`, whose encoder prepares images as training views are prepared; `convert`
# stands above `train`, in whose checkpoint format it writes.
RANKS: dict[str, float] = {
    "config": 0,
    "xla_flags": 0.25,
    **dict.fromkeys(("channels", "images", "chips"), 0.5),
    "channel_plans": 0.75,
    "launch": 0.9,
    **dict.fromkeys(("devices", "telemetry", "data", "simulate"), 1),
    "views": 1.5,
    **dict.fromkeys(("datasets", "model", "objective", "knowledge", "report"), 2),
    "train": 3,
    "convert": 3.5,
    **dict.fromkeys(("eval", "plan"), 4),
    "studies": 5,
    "cli": 6,
}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")
NO_JAX = ("data", "simulate", "datasets", "images", "knowledge", "config", "channels", "channel_plans", "xla_flags")


def room_of(module: str) -> str:
    return module.split(".")[1]


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The modules of this package (and `jax`) that a file imports, anywhere or at import time."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            base = node.module or ""
            names.add(base)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in RANKS, f"{path}: the room '{room}' has no rank"
    upward = []
    for name in imported(path):
        if name.startswith("protloc_jax.") and is_module(name):
            other = room_of(name)
            if other != room and RANKS[other] >= RANKS[room]:
                upward.append(name)
    assert not upward, f"{path} (rank {RANKS[room]}) imports {upward}"


def test_no_import_cycles_at_import_time():
    graph = {
        module_of(p): {n for n in imported(p, top_level_only=True) if n.startswith("protloc_jax") and is_module(n)}
        for p in FILES
    }
    graph = {module: {n for n in needs if n != module} for module, needs in graph.items()}
    # A package's __init__ that re-exports its files is not a cycle of the files.
    for module, needs in graph.items():
        graph[module] = {n for n in needs if not module.startswith(n + ".")}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {error.args[1]}")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_short(path):
    lines = path.read_text().count("\n")
    assert lines <= 420, f"{path} has {lines} lines; give the new concept a file of its own"


def test_train_never_imports_eval():
    for path in (PACKAGE / "train").rglob("*.py"):
        assert not any("protloc_jax.eval" in name for name in imported(path)), path


def test_rooms_of_the_host_import_no_jax_themselves():
    for room in NO_JAX:
        for path in [p for p in FILES if p.relative_to(PACKAGE).parts[0].removesuffix(".py") == room]:
            names = imported(path, top_level_only=True)
            assert not any(n == "jax" or n.startswith("jax.") for n in names), path


def test_data_leaves_jax_unloaded():
    code = (
        "import sys, protloc_jax.data.loader, protloc_jax.data.records, protloc_jax.channels\n"
        "loaded = sorted(m for m in sys.modules if m == 'jax' or m.startswith('jax.'))\n"
        "sys.exit(f'loaded {loaded[:3]}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["ml_collections", "grain", "array_record", "pandas"])
def test_the_step_imports_without(module):
    """The model, the objective and the step run on machines that have only jax, flax, optax and orbax."""
    code = f"import sys; sys.modules['{module}'] = None\nimport protloc_jax.train.step, protloc_jax.model.vit"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
