"""What records say of their own making."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from small_records import pack

from protloc_jax.data import info


@pytest.mark.parametrize("source", ["", "images/of/mine", "[1, 2]", "7", json.dumps({"folder": "mine"})])
def test_real_images_are_not_synthetic_whatever_their_source_says(tmp_path, source):
    own = info.load(pack(tmp_path / "set"))
    own = replace(own, packing={**own.packing, "source": source})
    assert own.simulated is None and own.synthetic == ""
    assert own.made_from == ({"folder": "mine"} if "folder" in source else {})


def test_simulated_images_say_of_what(tmp_path):
    own = info.load(pack(tmp_path / "set"))
    made = {"preset": "yeast", "difficulty": "hard", "seed": 3}
    own = replace(own, packing={"source": json.dumps({"simulated": made, "other": 1})})
    assert own.simulated == made
    assert own.synthetic == "simulated yeast, difficulty hard, seed 3"
