"""Channel names, roles and plans."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax import channels as ch

HPA = ch.ChannelSet([("microtubules", "microtubules"), ("protein", "protein"), ("nucleus", "nucleus"), ("er", "er")])
OPENCELL = ch.parse("hoechst,gfp")


def test_parse_gives_usual_roles():
    assert OPENCELL == (("hoechst", "nucleus"), ("gfp", "protein"))
    assert ch.parse("a:protein, DAPI").protein == 0
    assert str(ch.parse("a:protein, DAPI")) == "a:protein,DAPI:nucleus"
    assert ch.role_of("unheard-of") == "other"


def test_no_single_protein_channel_is_none():
    assert ch.parse("dna").protein is None
    assert ch.parse("a:protein,b:protein").protein is None


def test_bad_sets_are_refused():
    with pytest.raises(ValueError, match="repeated: gfp"):
        ch.parse("gfp,gfp")
    with pytest.raises(ValueError, match="Did you mean 'protein'"):
        ch.parse("gfp:proten")
    with pytest.raises(ValueError, match="empty channel name"):
        ch.parse("gfp,,dna")
    with pytest.raises(ValueError, match=r"no channel 'hoecst' Did you mean 'hoechst'"):
        OPENCELL.select(["hoecst"])


def test_subset_keeps_the_order_asked():
    assert HPA.subset(["er", "protein"]).names == ("er", "protein")
    assert HPA.subset([]) == HPA


@pytest.mark.parametrize("xp", [np, jnp])
def test_plans_place_channels(xp):
    images = xp.asarray(np.stack([np.full((1, 2, 2), v) for v in (5, 7)], axis=-1).astype(np.uint8))

    def values(plan):
        return [tuple(np.asarray(a)[0, 0, 0].tolist()) for a in plan.apply(images, OPENCELL)]

    assert values(ch.natural(HPA, OPENCELL)) == [(0, 7, 5, 0)]
    assert values(ch.natural(HPA, OPENCELL, fill="copy")) == [(5, 7, 5, 7)]
    assert values(ch.replicate(4, OPENCELL)) == [(5, 5, 5, 5), (7, 7, 7, 7)]
    assert values(ch.per_channel(HPA, OPENCELL)) == [(0, 7, 0, 0), (0, 0, 5, 0)]
    assert values(ch.explicit(HPA, {"er": "hoechst"})) == [(0, 0, 0, 5)]


def test_plans_refuse_what_cannot_be_placed():
    with pytest.raises(ValueError, match="matches a slot"):
        ch.natural(ch.parse("er"), OPENCELL)
    with pytest.raises(ValueError, match="no model slot 'nuclei'"):
        ch.explicit(ch.parse("nucleus"), {"nuclei": "hoechst"})
    with pytest.raises(ValueError, match="no channel at all"):
        ch.ChannelPlan(((None, None),), "x")
    with pytest.raises(ValueError, match="same number of slots"):
        ch.ChannelPlan((("a",), ("a", "b")), "x")
