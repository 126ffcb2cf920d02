"""Every config file resolves, says what it costs, and does not change silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from protloc_jax.config import load_file, to_json
from protloc_jax.studies.background.config import BackgroundStudy
from protloc_jax.studies.de_novo.config import DeNovoStudy
from protloc_jax.studies.transfer.config import TransferStudy
from protloc_jax.studies.ws_dino.config import WsDinoStudy
from protloc_jax.train.experiment import Experiment

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "configs"
FILES = sorted((ROOT / "configs").glob("*.py"))


def kind_of(path):
    """What a file configures, and the command that takes it."""
    studies = {
        "study_transfer": (TransferStudy, "study transfer"),
        "study_ws_dino": (WsDinoStudy, "study ws-dino"),
        "study_background": (BackgroundStudy, "study background"),
        "study_de_novo": (DeNovoStudy, "study de-novo"),
    }
    return next((kind for start, kind in studies.items() if path.stem.startswith(start)), (Experiment, "pretrain"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_resolved_config_is_the_golden_one(path):
    """To accept a change on purpose: write the new text into tests/golden/configs."""
    golden = GOLDEN / f"{path.stem}.json"
    assert to_json(load_file(path, kind_of(path)[0])) == golden.read_text(), (
        f"{path.name} no longer resolves to {golden}"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_docstring_has_the_command(path):
    text = path.read_text()
    assert f"protloc {kind_of(path)[1]} --config configs/{path.name}" in text
    assert "Budget" in text or "hours" in text or "seconds" in text
