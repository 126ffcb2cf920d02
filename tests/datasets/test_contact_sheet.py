"""The contact sheet: right colours in the right places, contrast as asked."""

from __future__ import annotations

import numpy as np

from protloc_jax.channels import parse
from protloc_jax.datasets.contact_sheet import colours, contact_sheet


def test_roles_have_their_colours_and_no_two_channels_share_one():
    tints = colours(parse("dapi,gfp:protein,rfp:protein,a:other,b:other"))
    assert len({tuple(t) for t in tints}) == 5
    assert tints[0].argmax() == 2
    assert tints[1].argmax() == 1


def test_each_channel_stands_in_its_column_and_the_composite_adds_them():
    image = np.zeros((40, 40, 2), np.uint16)
    image[:20, :, 0] = 1000
    image[:, :20, 1] = 1000
    limits = [np.array([[0, 1000], [0, 2000]])]
    sheet = np.asarray(contact_sheet([image], ["one"], parse("gfp:protein,dapi"), limits, title="t", tile=40)).astype(
        float
    )
    top = sheet.shape[0] - (40 + 14 + 4)
    boxes = [sheet[top : top + 40, 4 + 44 * i : 44 + 44 * i] for i in range(3)]
    green, blue, both = boxes
    tints = colours(parse("gfp:protein,dapi")) * 255
    np.testing.assert_allclose(green[5, 30], tints[0], atol=1)
    np.testing.assert_allclose(green[30, 5], 0, atol=1)
    np.testing.assert_allclose(blue[30, 5], tints[1] / 2, atol=1)
    np.testing.assert_allclose(blue[5, 30], 0, atol=1)
    np.testing.assert_allclose(both[5, 5], np.minimum(tints[0] + tints[1] / 2, 255), atol=1)
    np.testing.assert_allclose(both[30, 30], 0, atol=1)


def test_long_captions_and_wide_images_do_not_break_the_sheet():
    image = np.full((10, 90, 1), 7, np.uint8)
    sheet = contact_sheet([image] * 3, ["x" * 500] * 3, parse("gfp"), [np.array([[7, 7]])] * 3, tile=60)
    assert sheet.size[0] < 200


def test_many_channels_are_dimmed_together_so_that_the_composite_keeps_its_colours():
    names = parse("dapi,er:er,phalloidin,rna:rna,golgi:golgi")
    image = np.full((20, 20, 5), 100, np.uint8)
    sheet = np.asarray(contact_sheet([image], ["one"], names, [np.array([[0, 100]] * 5)], tile=20)).astype(float)
    composite = sheet[-(20 + 14 + 4) :, -24:-4][5, 5]
    np.testing.assert_allclose(composite, np.minimum(0.5 * colours(names).sum(axis=0), 1) * 255, atol=1)
