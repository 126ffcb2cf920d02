"""Channel plans as text: what each places where, against tables written by hand; refusals."""

from __future__ import annotations

import numpy as np
import pytest

from protloc_jax import channel_plans as cp
from protloc_jax import channels as ch

HPA = ch.ChannelSet([("microtubules", "microtubules"), ("protein", "protein"), ("nucleus", "nucleus"), ("er", "er")])
RGB = ch.parse("r:other,g:other,b:other")
OPENCELL = ch.parse("hoechst,gfp")

# N is Hoechst, P is GFP; the tables of published readings, by hand.
BY_HAND = [
    (HPA, "natural", ["0PN0"]),
    (HPA, "natural+copy", ["NPNP"]),
    (HPA, "natural+copy:gfp,hoechst", ["PPNN"]),
    (HPA, "natural+copy:protein", ["PPNP"]),
    (HPA, "per-channel", ["0P00", "00N0"]),
    (HPA, "per-channel:protein", ["0N00", "0P00"]),
    (HPA, "replicate", ["NNNN", "PPPP"]),
    (HPA, "replicate:gfp", ["PPPP"]),
    (HPA, "slots:er=gfp, nucleus=nucleus", ["00NP"]),
    (HPA, "passes:gfp,0,0,0;0,,nucleus,0", ["P000", "00N0"]),
    (RGB, "replicate", ["NNN", "PPP"]),
    (RGB, "colour", ["0PN"]),
    (RGB, "colour+copy", ["NPN"]),
    (RGB, "colour+copy:gfp", ["PPN"]),
    (RGB, "colour-per-channel", ["0P0", "00N"]),
    (RGB, "slots:r=,g=gfp,b=nucleus", ["0PN"]),
]


def letters(plan):
    short = {None: "0", "gfp": "P", "hoechst": "N"}
    return ["".join(short[name] for name in slots) for slots in plan.passes]


@pytest.mark.parametrize(("model", "text", "wanted"), BY_HAND, ids=[f"{len(m)} {t}" for m, t, _ in BY_HAND])
def test_texts_place_channels(model, text, wanted):
    plan = cp.plan_of(text, model, OPENCELL)
    assert letters(plan) == wanted
    assert (plan.slots, plan.width(768)) == (len(model), 768 * len(wanted))
    again = cp.plan_of(plan.text, model, OPENCELL)
    assert again.passes == plan.passes, "the wiring is a plan's text too"


def test_all_plans_with_their_widths():
    found = {text: (letters(p), p.width(768)) for text, p in cp.plans_for(HPA, OPENCELL).items()}
    assert {k: v for k, v in found.items() if not k.startswith("permuted")} == {
        "natural": (["0PN0"], 768),
        "natural+copy": (["NPNP"], 768),
        "natural+copy:gfp,hoechst": (["PPNN"], 768),
        "per-channel": (["0P00", "00N0"], 1536),
        "per-channel:protein": (["0N00", "0P00"], 1536),
        "replicate": (["NNNN", "PPPP"], 1536),
    }
    assert [(k, w) for k, (_, w) in found.items() if k.startswith("permuted")] == [
        ("permuted:0", 768),
        ("permuted:0:per-channel", 1536),
    ]
    colours = cp.plans_for(RGB, OPENCELL, seeds=(1, 2))
    assert list(colours)[:5] == [
        "colour",
        "colour+copy",
        "colour+copy:gfp,hoechst",
        "colour-per-channel",
        "per-channel:g",
    ]
    assert {text.split(":")[0] for text in list(colours)[5:]} == {"replicate", "permuted"}
    for model, plans in ((HPA, cp.plans_for(HPA, OPENCELL)), (RGB, colours)):
        for text, plan in plans.items():
            assert cp.plan_of(text, model, OPENCELL) == plan
        lines = cp.plan_lines(plans, 768)
        assert len(lines) == len(plans)
        assert all(
            str(p.width(768)) in line and cp.shown(p) in line for line, p in zip(lines, plans.values(), strict=True)
        )


def test_any_number_of_slots_and_channels():
    paint = ch.parse("DNA,RNA,ER,AGP,Mito")
    plans = cp.plans_for(paint, ch.parse("dapi,mito,gfp"))
    assert plans["natural"].passes == (("dapi", None, None, None, "mito"),)
    assert plans["natural+copy"].passes == (("dapi", "dapi", "mito", "gfp", "mito"),)
    assert plans["replicate"].width(10) == 30
    assert cp.unused(plans["natural"], ch.parse("dapi,mito,gfp")) == ("gfp",)
    assert list(cp.plans_for(ch.parse("er"), ch.parse("gfp"))) == ["replicate"], "nothing natural, nothing to move"
    same = cp.plans_for(OPENCELL, OPENCELL)
    assert same["natural"].passes == (("hoechst", "gfp"),)
    assert "natural+copy" not in same, "of equal wirings the first"


def test_random_orders_are_fixed_for_ever_and_never_the_natural_one():
    texts = [f"permuted:{seed}" for seed in range(40)]
    made = [letters(cp.plan_of(text, HPA, OPENCELL))[0] for text in texts]
    assert made[:4] == ["N0P0", "PN00", "P00N", "PN00"], "SHA-256 alone decides"
    assert "0PN0" not in made
    assert len(set(made)) > 8, "of 11 other arrangements"
    assert {"".join(sorted(m)) for m in made} == {"00NP"}
    one, each = (cp.plan_of(f"permuted:7{more}", HPA, OPENCELL) for more in ("", ":per-channel"))
    assert one.label == "random order 7 (" + one.label.split("(")[1]
    joined = ["".join(a if a != "0" else b for a, b in zip(*letters(each), strict=True))]
    assert joined == letters(one), "the same order in every pass"
    colour = cp.plan_of("permuted:3", RGB, OPENCELL)
    assert sorted(letters(colour)[0]) == ["0", "N", "P"]


def test_all_permutations_once():
    every = cp.permutations(cp.plan_of("natural", HPA, OPENCELL))
    wanted = {
        "".join("P" if i == p else "N" if i == n else "0" for i in range(4))
        for p in range(4)
        for n in range(4)
        if p != n
    }
    assert {letters(p)[0] for p in every} == wanted
    assert len(every) == 12
    assert letters(every[0]) == ["0PN0"]
    wide = ch.ChannelSet((f"c{i}", "other") for i in range(8))
    with pytest.raises(ValueError, match="8 slots have too many arrangements"):
        cp.permutations(ch.replicate(8, wide))


def test_a_permuted_plan_moves_the_pixels():
    images = np.stack([np.full((1, 2, 2), v, np.uint8) for v in (5, 7)], axis=-1)
    plan = cp.plan_of("permuted:2", HPA, OPENCELL)
    (placed,) = plan.apply(images, OPENCELL)
    assert ["0PN"[(0, 7, 5).index(v)] for v in placed[0, 0, 0]] == list(letters(plan)[0])


@pytest.mark.parametrize(
    ("model", "text", "words"),
    [
        (HPA, "natrual", ["not one of natural", "Did you mean 'natural'"]),
        (HPA, "natural:gfp", ["takes nothing after it"]),
        (HPA, "natural+copy:gpf,x", ["no channel 'gpf' Did you mean 'gfp'?", "no channel 'x'", "Channels: hoechst"]),
        (HPA, "replicate:0,gfp", ["'0' is no channel"]),
        (HPA, "per-channel:nuclues", ["no model slot 'nuclues'. Did you mean 'nucleus'"]),
        (
            HPA,
            "slots:protien=gfp,er=gpf,nucleus,er=gfp",
            [
                "'nucleus' has no '='",
                "slot 'er' twice",
                "no model slot 'protien' Did you mean 'protein'?",
                "no channel 'gpf'",
            ],
        ),
        (HPA, "passes:gfp,0,0;0,0,dna2,0", ["pass 1 fills 3 slots, the model has 4", "no channel 'dna2'"]),
        (HPA, "passes:0,0,0,0", ["uses no channel"]),
        (HPA, "slots:", ["for example slots:microtubules=hoechst"]),
        (HPA, "passes", ["for example passes:hoechst,0,0,0"]),
        (HPA, "permuted:x", ["permuted:SEED"]),
        (HPA, "permuted:0:replicate", ["fills all slots alike"]),
        (HPA, "colour", ["need slots that are called r, red"]),
        (RGB, "natural", ["mere colours", "'colour', 'replicate', or say it: slots:r=hoechst"]),
    ],
)
def test_refusals_name_everything(model, text, words):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        cp.plan_of(text, model, OPENCELL)
    for word in words:
        assert word in str(refusal.value), str(refusal.value)


def test_a_role_that_two_channels_have_is_no_name():
    with pytest.raises(ValueError, match="'protein' is the role of a, b: name one"):
        cp.plan_of("slots:er=protein", HPA, ch.parse("a:protein,b:protein"))
