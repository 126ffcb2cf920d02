"""Which row of the vocabulary a channel has: by name, then by role, then as "other"."""

from __future__ import annotations

import numpy as np
import pytest

from protloc_jax.channels import parse
from protloc_jax.model.config import VitConfig
from protloc_jax.model.vocabulary import (
    channel_rows,
    covered,
    extended,
    moved_rows,
    names_of,
    rows_of,
    with_vocabulary,
)

ROLES = ("nucleus", "protein", "microtubules", "er", "actin", "mito", "other")


def test_rows_by_name_role_and_other():
    assert rows_of(ROLES, parse("dapi,gfp,tubulin,er")) == (0, 1, 2, 3)
    assert rows_of(ROLES, parse("protein:er,nucleus,MitoTracker:mitochondria")) == (1, 0, 5), "names come first"
    assert rows_of(ROLES, parse("brightfield,golgi,a:nucleus,b:nucleus")) == (6, 6, 0, 0)
    # Of several entries with a role only one that is called like it can stand for it.
    assert rows_of(("er1:er", "er2:er", "er"), parse("ConA:er")) == (2,)
    assert rows_of(("er1:er", "er2:er", "other"), parse("ConA:er,er2:er")) == (2, 1)
    assert rows_of(("x:protein",), parse("gfp")) == (0,)


def test_channels_without_a_row_are_all_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"has no row for") as caught:
        rows_of(("nucleus", "er1:er", "er2:er"), parse("er,nuclues:other,nucleus,gfp"))
    said = str(caught.value)
    for words in ("'er' (er) Did you mean 'er2'?", "'nuclues' (other) Did you mean 'nucleus'?", "'gfp' (protein)"):
        assert words in said
    assert "'nucleus' (" not in said and "or 'other'" in said
    assert covered(("nucleus", "er"), parse("gfp,er,dapi")).names == ("er", "dapi")


def test_an_empty_vocabulary_is_that_of_the_data_with_roles_where_names_do_not_tell():
    channels = parse("ch1:protein,dapi,odd,er:other")
    config = with_vocabulary(VitConfig(stem="channels"), channels)
    assert config.channel_names == names_of(channels) == ("ch1:protein", "dapi", "odd", "er:other")
    assert channel_rows(config, channels) == (0, 1, 2, 3)
    assert channel_rows(config, parse("nuclei,gfp")) == (1, 0)
    given = VitConfig(stem="channels", channel_names=ROLES)
    assert with_vocabulary(given, channels) is given
    with pytest.raises(ValueError, match=r"has no row for 'odd'"):
        with_vocabulary(VitConfig(stem="channels", channel_names=ROLES[:-1]), parse("gfp,odd"))
    joint = VitConfig()
    assert with_vocabulary(joint, channels) is joint and channel_rows(joint, channels) == ()


def test_rows_move_to_another_vocabulary_by_name():
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    old = ("nucleus", "gfp", "er", "other")
    new = moved_rows(table, old, ("er", "dapi", "nucleus", "lipid"))
    np.testing.assert_array_equal(new, table[[2, 0, 0, 3]])
    new = moved_rows(table[:3], old[:3], ("gfp", "lipid"))
    np.testing.assert_array_equal(new, [table[1], table[:3].mean(0)])
    assert new.dtype == np.float32
    assert extended(old[:3], parse("dapi,lipid,mito2:mitochondria")) == (*old[:3], "lipid", "mito2:mitochondria")
    assert extended(old, parse("lipid")) == old
