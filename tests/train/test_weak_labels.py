"""One key turns plain DINO into WS-DINO, and settings that would leave partners unseen are refused."""

from __future__ import annotations

import pytest

from protloc_jax.config import ConfigError, from_mapping, to_dict, with_overrides
from protloc_jax.train.experiment import Experiment

LABEL = "data.weak_label=compound"


def test_one_key_is_enough_and_an_old_config_is_read():
    experiment = with_overrides(Experiment(), [LABEL])
    assert experiment.views.local_from == "auto"
    saved = to_dict(Experiment())
    saved["data"] = {"partner": "compound"}
    assert from_mapping(Experiment, saved).data.weak_label == "compound"
    with pytest.raises(ConfigError, match=r"unknown key 'data\.partner'\. It is now 'data\.weak_label'"):
        with_overrides(Experiment(), ["data.partner=compound"])


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["views.local_from=partner"], r"views\.local_from=partner: needs data\.weak_label"),
        (["views.local_from=both"], r"views\.local_from=both: needs data\.weak_label"),
        ([LABEL, "views.local_from=image"], r"would be read and not looked at with views\.local_from=image"),
        ([LABEL, "views.n_local=0"], r"with views\.n_local=0 no crop would show the partner"),
        ([LABEL, "method.name=supervised"], r"method\.name=supervised learns the labels of an image from that image"),
    ],
)
def test_partners_that_nobody_would_see_are_refused(overrides, reason):
    with pytest.raises(ConfigError, match=reason):
        with_overrides(Experiment(), overrides)


def test_two_images_side_by_side_need_no_local_crops():
    experiment = with_overrides(Experiment(), [LABEL, "views.local_from=both", "views.n_local=0"])
    assert experiment.data.weak_label == "compound"


def test_an_adversary_keeps_the_settings_of_the_dino_that_it_extends():
    own = with_overrides(Experiment(), ["method.out_dim=64", "method.centring=sinkhorn"])
    adversary = with_overrides(own, ["method.name=dino_adversary", "method.nuisance=plate"]).method
    assert (adversary.name, adversary.out_dim, adversary.centring) == ("dino_adversary", 64, "sinkhorn")
    assert with_overrides(own, ["method.name=supervised"]).method.name == "supervised"
