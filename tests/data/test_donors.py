"""Donors: any other image of the split, a pure function of seed and example, the same on any number of hosts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from protloc_jax.data.sampler import Sampler
from protloc_jax.train.experiment import Experiment
from protloc_jax.views.background_config import BackgroundViews


def test_donors_are_the_other_records_of_the_split_drawn_evenly():
    rows = np.array([3, 5, 8, 13, 21])
    sampler = Sampler(5, 7, rows=rows)
    numbers = np.arange(20_000)
    index, donor = sampler.index(numbers), sampler.donor(numbers)
    assert (index != donor).all()
    pairs, times = np.unique(index * 100 + donor, return_counts=True)
    assert len(pairs) == 20 and np.abs(times / 1000 - 1).max() < 0.13  # 4 standard deviations of 1000 draws
    assert [sampler.donor(int(i)) for i in numbers[:50]] == donor[:50].tolist()
    assert Sampler(5, 8, rows=rows).donor(numbers[:50]).tolist() != donor[:50].tolist()


def test_donors_go_on_where_they_were_and_leave_other_draws_alone():
    groups = np.arange(12) % 3
    sampler = Sampler(12, 1, groups=groups)
    numbers = np.arange(100, 140)
    assert sampler.donor(numbers).tolist() == [sampler.donor(int(i)) for i in numbers]
    # A donor is drawn from numbers of its own: knowing the partner says nothing of it.
    same = (sampler.donor(np.arange(6000)) == sampler.partner(np.arange(6000))).mean()
    assert abs(same - 1 / 11) < 0.02


def test_stand_ins_begin_with_the_donor_and_name_every_record():
    sampler = Sampler(6, 3)
    for number in range(20):
        found = list(sampler.donors(number))
        assert found[0] == sampler.donor(number)
        assert sorted(found[1:]) == list(range(6))


def test_a_split_of_one_record_has_only_itself():
    assert Sampler(1, 0, rows=np.array([4])).donor(3) == 4


@pytest.mark.parametrize(
    ("data", "background", "message"),
    [
        ({"donor": "any"}, {}, "donors would be read and not looked at"),
        ({"mask": True}, {"swap": 0.5}, "set data.donor=any"),
        ({"donor": "any"}, {"swap": 0.5}, "set data.mask=true"),
        ({"donor": "any", "mask": True, "weak_label": "protein"}, {"swap": 0.5}, "partners have no masks"),
    ],
)
def test_settings_that_do_not_go_together(data, background, message):
    plain = Experiment()
    views = replace(plain.views, background=BackgroundViews(**background))
    with pytest.raises(ValueError, match=message):
        replace(plain, data=replace(plain.data, **data), views=views)
