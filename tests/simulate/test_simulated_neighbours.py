"""The same cell among other neighbours: it sends out the same light, and only optics carry theirs into it."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from scipy import ndimage

from protloc_jax.config import ConfigError
from protloc_jax.simulate import SimConfig, catalogue, crops, neighbours, render, render_many
from protloc_jax.simulate.layout import cached_catalogue, field_rows, proteins_by_name

YEAST = SimConfig(preset="yeast", n_proteins=24, tail=0.05, fovs_per_protein=1, size=112, difficulty="easy")
HPA = SimConfig(preset="hpa_sc", n_proteins=24, tail=0.05, fovs_per_protein=1, size=224, difficulty="easy")
KINDS = ("field", "same_class", "other_class", "none")


def among(config, kind, **options):
    return dataclasses.replace(config, neighbours=kind, **options)


def crowded(config):
    """The row of a large cell that has much of others in its image."""
    config = among(config, "field")
    rows = []
    for field_row in cached_catalogue(config).to_dict("records"):
        rows += crops.cells_of_field(config, field_row)
        if len(rows) > 12:
            break
    return max((row for row in rows if row["others"] > 0.1), key=lambda row: row["coverage"])


@pytest.fixture(scope="module", params=[YEAST, HPA], ids=["yeast", "hpa_sc"])
def views(request):
    """One cell as the plain field has it, and among every kind of neighbours."""
    row = crowded(request.param)
    kinds = {kind: render(among(request.param, kind), row["id"]) for kind in KINDS}
    return request.param, row, {"plain": render(request.param, row["id"]), **kinds}


def test_the_cell_sends_out_the_same_whatever_stands_around_it(views):
    config, row, seen = views
    own, plain = proteins_by_name(config)[row["protein"]], seen["plain"]
    mine = plain.cell_labels == row["cell"]
    for kind, field in seen.items():
        assert np.array_equal(field.cell_labels == row["cell"], mine), kind
        for name, part in field.density.items():
            if name in own.weights:
                assert np.array_equal(part[mine], plain.density[name][mine]), (kind, name)
                assert part[mine].sum() > 0
            else:
                assert not part[mine].any(), (kind, name)
        for name in ("expression", "protein", "weights", "phase", "id", "contrast", "defocus"):
            assert field.truth[name] == plain.truth[name], (kind, name)


def test_neighbours_carry_the_protein_that_is_told_and_lie_where_they_lay(views):
    config, row, seen = views
    known = proteins_by_name(config)
    plain = seen["plain"]
    others = (plain.cell_labels > 0) & (plain.cell_labels != row["cell"])
    for kind in KINDS:
        told = crops.cell_row(among(config, kind), row["id"])
        assert told["neighbour_kind"] == kind
        if kind == "none":
            assert (told["neighbour_class"], told["neighbour_proteins"], told["others"]) == ("", "", 0)
            assert not seen[kind].truth["neighbours"]
            assert not any(part[others].any() for part in seen[kind].density.values())
            assert set(np.unique(seen[kind].cell_labels)) == {0, row["cell"]}
            continue
        assert np.array_equal(seen[kind].cell_labels, plain.cell_labels)
        assert np.array_equal(seen[kind].nucleus_labels, plain.nucleus_labels)
        protein = known[told["neighbour_proteins"]]
        assert set(seen[kind].truth["neighbours"].values()) == {protein.name}
        assert told["neighbour_class"] == protein.primary
        assert {name for name, part in seen[kind].density.items() if part[others].any()} == set(protein.weights)
        assert (protein.name == row["protein"]) == (kind == "field")
        assert (protein.primary == row["primary"]) == (kind != "other_class")


def test_the_field_itself_is_the_plain_image_and_the_others_are_not(views):
    _, _, seen = views
    assert np.array_equal(seen["field"].image, seen["plain"].image)
    images = [seen[kind].image for kind in KINDS]
    assert all(not np.array_equal(a, b) for i, a in enumerate(images) for b in images[:i])


@pytest.mark.parametrize("config", [YEAST, HPA], ids=["yeast", "hpa_sc"])
def test_light_in_the_cell_changes_by_what_optics_bring_from_its_neighbours(config):
    """Expected photons within the cell, against SciPy's Gaussians over the mirrored difference outside of it."""
    row = crowded(config)
    sent, arrived = {}, {}
    for kind in ("same_class", "other_class"):
        shot, own, _ = neighbours._taken(among(config, kind), row["field"])
        mine = shot.cells.cell_labels == row["cell"]
        protein = neighbours.neighbour_of(among(config, kind), field_rows(config)[row["field"]], row["cell"])
        theirs, _ = neighbours.fields.alone(shot, protein, address=f"neighbours:{protein.name}")
        light = neighbours._beside(own, theirs, mine)
        assert np.array_equal(light.sent[mine], own.sent[mine])
        assert np.array_equal(light.sent[~mine], theirs.sent[~mine])
        sent[kind], arrived[kind] = light.sent.astype(float) * light.unit, neighbours.fields.arrive(shot, light)
    change = sent["other_class"] - sent["same_class"]
    preset, lens = config.domain, shot.lens
    index = preset.roles.index("protein")
    effect = shot.effects[index]
    sharp = np.hypot(0.21 * preset.optics[index].wavelength / preset.numerical_aperture, shot.defocus) * effect.psf
    haze = min(0.8, preset.haze * effect.haze)
    mirrored = np.fft.fft2(np.block([[change, change[:, ::-1]], [change[::-1], change[::-1, ::-1]]]))
    size = config.size
    expected = sum(
        share * np.fft.ifft2(ndimage.fourier_gaussian(mirrored, sigma / preset.um_per_pixel)).real[:size, :size]
        for share, sigma in ((1 - haze, sharp), (haze, preset.haze_sigma))
    )
    inner = mine & (ndimage.distance_transform_edt(mine) > 1)
    found = (arrived["other_class"] - arrived["same_class"])[inner]
    assert lens is shot.lenses[index]
    assert np.abs(expected[inner]).max() > 1  # photons: neighbours do shine into the cell
    np.testing.assert_allclose(found, expected[inner], atol=0.02 * np.abs(expected[inner]).max())


def test_far_from_its_neighbours_the_cell_has_the_same_grey_levels():
    row = crowded(HPA)
    first, second = (render(among(HPA, kind), row["id"]) for kind in ("same_class", "other_class"))
    mine = first.cell_labels == row["cell"]
    away = ndimage.distance_transform_edt((first.cell_labels == 0) | mine)
    reach = 4 * HPA.domain.haze_sigma / HPA.domain.um_per_pixel
    apart = np.abs(first.image.astype(int) - second.image.astype(int))
    deep, beside = mine & (away > reach), (first.cell_labels > 0) & ~mine
    # Pixels of fewer than 8 photons draw Poisson counts one after the other: another count, of the same distribution.
    bright = (np.minimum(first.image, second.image) > 24) & deep[..., None]
    assert bright.sum() > 500
    assert np.mean(apart[bright] <= 1) > 0.99
    assert np.mean(apart[beside][:, HPA.domain.roles.index("protein")] <= 1) < 0.6


def test_all_kinds_hold_the_same_cells_and_stay_within_the_split():
    tables = {kind: catalogue(among(YEAST, kind)) for kind in KINDS}
    plain = catalogue(YEAST)
    known = proteins_by_name(YEAST)
    split_of = cached_catalogue(YEAST).drop_duplicates("protein").set_index("protein").split
    for table in tables.values():
        assert list(table.id) == list(tables["field"].id)
        kept = plain[plain.id.isin(table.id)]
        for name in ("id", "protein", "row", "column", "coverage", "split", "cell"):
            assert kept[name].tolist() == table[name].tolist()
    lost = neighbours.without_neighbours(among(YEAST, "field"))
    gone = plain[~plain.id.isin(tables["field"].id)]
    assert set(gone.protein) <= {name for names in lost.values() for name in names}
    for split, names in lost.items():
        for name in names:  # none of its class is left in its split
            mates = [p for p in known if known[p].primary == known[name].primary and split_of[p] == split]
            assert mates == [name]
    for kind in ("same_class", "other_class"):
        for row in tables[kind][tables[kind].neighbours > 0].itertuples():
            assert split_of[row.neighbour_proteins] == row.split
            assert row.neighbour_proteins != row.protein
            assert (row.neighbour_class == row.primary) == (kind == "same_class")


def test_neighbours_are_drawn_by_class_then_by_protein():
    config = among(SimConfig(preset="yeast", n_proteins=90, tail=0.2, size=112, fovs_per_protein=1), "other_class")
    row = next(r for r in cached_catalogue(config).to_dict("records") if neighbours.told(config, r))
    drawn = [neighbours.neighbour_of(config, row, label) for label in range(1, 2001)]
    classes = Counter(protein.primary for protein in drawn)
    present = set(cached_catalogue(config).query("split == @row['split'] and primary != @row['primary']").primary)
    assert set(classes) == present
    # Uniform over classes although they differ in size: each count within five standard deviations.
    mean = 2000 / len(present)
    assert max(abs(count - mean) for count in classes.values()) < 5 * np.sqrt(mean)


def test_a_draw_has_its_own_address():
    config = among(YEAST, "other_class")
    row = field_rows(config)[crowded(YEAST)["field"]]
    first = [neighbours.neighbour_of(config, row, label).name for label in range(1, 13)]
    assert first == [neighbours.neighbour_of(config, row, label).name for label in range(1, 13)]
    again = dataclasses.replace(config, neighbour_draw=1)
    assert first != [neighbours.neighbour_of(again, row, label).name for label in range(1, 13)]
    assert len(set(first)) > 4


def test_many_are_rendered_as_each_alone():
    config = among(YEAST, "other_class")
    positions = [3, 0, 1]
    alone = [render(config, position) for position in positions]
    for found, expected in zip(render_many(config, positions, workers=0), alone, strict=True):
        assert np.array_equal(found.image, expected.image)
        assert found.truth["id"] == expected.truth["id"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": "other_clas"}, "neighbours: unknown 'other_clas'.*Did you mean 'other_class'"),
        ({"neighbours": "field", "unit": "field"}, "only single cells"),
        ({"neighbours": "field", "pooled": 0.5}, "pooled draws them too"),
        ({"neighbour_draw": 1}, "neighbour_draw: nothing is drawn unless"),
        ({"neighbours": "none", "neighbour_draw": 1}, "neighbour_draw: nothing is drawn unless"),
        ({"neighbours": "same_class", "neighbour_draw": -1}, "neighbour_draw: must be an integer >= 0"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SimConfig(preset="yeast", **options)


def test_too_few_proteins_are_refused():
    with pytest.raises(ValueError, match=r"no protein has another one of its class.*n_proteins=3"):
        catalogue(among(dataclasses.replace(YEAST, n_proteins=3), "same_class"))
