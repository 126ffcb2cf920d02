"""Both averaging rules on a case computed by hand, and on published accuracies."""

import itertools
import math

import numpy as np
import pytest

from protloc_jax.eval.background.averaging import class_means, mean_and_spread

PAIRS = {"AB": 0.9, "AC": 0.8, "AD": 0.7, "BC": 0.6, "BD": 0.5, "CD": 0.4}
# Accuracy of each pair on its two remaining backgrounds, in the order of the classes.
TRIPLETS = {"AB": (0.9, 0.8), "AC": (0.8, 0.6), "AD": (0.7, 0.7), "BC": (0.6, 0.5), "BD": (0.5, 0.9), "CD": (0.4, 0.6)}


def pair_table():
    return {"first": [p[0] for p in PAIRS], "second": [p[1] for p in PAIRS], "accuracy": list(PAIRS.values())}


def triplet_table():
    rows = [
        (p[0], p[1], b, v)
        for p, values in TRIPLETS.items()
        for b, v in zip(sorted({*"ABCD"} - {*p}), values, strict=True)
    ]
    return dict(zip(("first", "second", "background", "accuracy"), map(list, zip(*rows, strict=True)), strict=True))


def test_pairs_by_hand():
    text = class_means(**pair_table(), classes="ABCD", condition="baseline")
    # A: (.9 + .8 + .7) / 3; B: (.9 + .6 + .5) / 3; C: (.8 + .6 + .4) / 3; D: (.7 + .5 + .4) / 3
    np.testing.assert_allclose(text.accuracy, [0.8, 2 / 3, 0.6, 1.6 / 3])
    assert text.mean == pytest.approx(0.65) and list(text.rows) == [3] * 4
    squares = sum((v - 0.65) ** 2 for v in (0.8, 2 / 3, 0.6, 1.6 / 3))
    assert text.spread == pytest.approx(3 * math.sqrt(squares / 3) / 2)
    for condition in ("baseline", "masked"):
        table1 = class_means(**pair_table(), classes="ABCD", condition=condition, rule="paper_table1")
        assert table1.classes == ("A", "B", "C") and list(table1.rows) == [3, 2, 1]  # D never comes first
        np.testing.assert_allclose(table1.accuracy, [0.8, 0.55, 0.4])
        assert table1.mean == pytest.approx(1.75 / 3)
    same = class_means(**pair_table(), classes="ABCD", condition="same", rule="paper_table1")
    np.testing.assert_allclose(same.accuracy, text.accuracy)


@pytest.mark.parametrize("condition", ["different", "cell_free"])
def test_triplets_by_hand(condition):
    text = class_means(**triplet_table(), classes="ABCD", condition=condition)
    # A: (.9 + .8 + .8 + .6 + .7 + .7) / 6, and so on
    np.testing.assert_allclose(text.accuracy, [4.5 / 6, 4.2 / 6, 3.5 / 6, 3.8 / 6])
    table1 = class_means(**triplet_table(), classes="ABCD", condition=condition, rule="paper_table1")
    # First backgrounds only: AB .9 (on C), AC .8, AD .7 (on B), BC .6, BD .5, CD .4 (on A)
    np.testing.assert_allclose(table1.accuracy, [2.4 / 3, 2.0 / 3, 1.8 / 3, 1.6 / 3])
    assert list(text.rows) == [6] * 4 and list(table1.rows) == [3] * 4


def test_backgrounds_of_the_pair_itself_are_dropped_and_counted():
    table = triplet_table()
    for column, value in zip(table, ("A", "B", "A", 0.0), strict=True):
        table[column].insert(0, value)
    for rule in ("text", "paper_table1"):
        with_own = class_means(**table, classes="ABCD", condition="different", rule=rule)
        without = class_means(**triplet_table(), classes="ABCD", condition="different", rule=rule)
        assert with_own.mean == without.mean and with_own.dropped == 1 and without.dropped == 0


# Published accuracies of PIFiA's 105 baseline pairs (x 10,000), row by row of the upper triangle of the 15 classes.
PIFIA_BASELINE = """
9735 9825 9675 9695 9770 9685 9620 9815 9945 9870 9820 9375 9790 9780
9570 8405 9610 9125 9560 9115 9320 9810 9865 9355 9490 9610 8940
9520 9640 9135 9565 9675 9760 9805 9945 9730 9705 9585 9295
9355 9235 9505 9030 9245 9810 9800 9345 9555 9450 8970
9415 8990 9270 9485 9765 9805 9415 9490 8795 9105
9375 9240 9530 9560 9840 9545 9535 9315 8700
9195 9690 9830 9825 9610 9310 9460 8965
9240 9655 9580 9310 9285 9425 8975
9585 9305 9305 9595 9635 9370
9740 9675 9855 9595 9735
9375 9850 9835 9840
9585 9590 9355
9695 9585
8735
"""
CLASSES = ("actin", "bud neck", "cell periphery", "cytoplasm", "endosome", "ER", "Golgi", "mitochondrion", "nucleus")
CLASSES += ("nuclear periphery", "nucleolus", "spindle pole", "peroxisome", "vacuolar membrane", "vacuole")


def test_published_pairs_give_the_published_row_by_one_rule_and_the_stated_row_by_the_other():
    first, second = zip(*itertools.combinations(CLASSES, 2), strict=True)
    accuracy = [int(v) / 1e4 for v in PIFIA_BASELINE.split()]
    how = {"first": first, "second": second, "accuracy": accuracy, "classes": CLASSES, "condition": "baseline"}
    table1 = class_means(**how, rule="paper_table1")
    assert (f"{table1.mean:.3f}", f"{table1.spread:.3f}") == ("0.946", "0.020") and len(table1.classes) == 14
    text = class_means(**how)
    assert (f"{text.mean:.4f}", f"{text.spread:.4f}") == ("0.9497", "0.0123")
    np.testing.assert_allclose(text.accuracy, per_class()[0, 0], atol=0.0005 + 1e-9)


# Class means (x 1000) as published per class: PIFiA, PCI, DeepLoc; each baseline, same, different, cell-free, masked.
PER_CLASS = """
974 956 852 929 908  952 952 779 906 890  769 753 610 723 718
939 931 830 883 871  904 927 768 852 855  718 746 611 688 681
963 958 869 930 901  947 962 830 920 902  736 778 666 707 742
935 944 845 887 875  901 927 780 861 858  723 778 638 691 692
942 916 806 877 858  898 900 736 843 844  688 704 593 654 670
938 936 834 890 864  900 916 761 858 847  689 723 603 664 657
947 925 813 891 861  915 911 732 861 847  679 713 590 656 657
933 918 808 879 854  885 896 723 840 832  676 697 587 657 655
949 953 877 909 902  920 937 788 883 883  713 738 610 683 670
974 960 894 934 922  944 951 808 896 894  710 748 617 685 705
975 964 893 934 926  953 959 828 911 914  802 854 702 769 767
950 938 833 899 885  920 925 761 870 866  713 755 613 676 655
957 937 827 893 883  924 935 766 864 872  700 724 600 654 653
947 934 835 898 885  930 943 795 879 893  696 718 591 686 677
924 916 817 869 859  892 917 769 849 853  717 752 637 669 682
"""
# Means and spreads by the text's rule, computed from the published pairs and triplets.
BY_THE_RULE = {
    "PIFiA": ((0.9497, 0.0123), (0.9391, 0.0125), (0.8423, 0.0225), (0.9001, 0.0170), (0.8835, 0.0183)),
    "PCI": ((0.9189, 0.0173), (0.9305, 0.0159), (0.7749, 0.0247), (0.8728, 0.0197), (0.8700, 0.0191)),
    "DeepLoc": ((0.7153, 0.0261), (0.7455, 0.0300), (0.6178, 0.0245), (0.6840, 0.0239), (0.6853, 0.0267)),
}


def per_class():
    """[3 models, 5 conditions, 15 classes]."""
    return np.array(PER_CLASS.split(), float).reshape(15, 3, 5).transpose(1, 2, 0) / 1000


def test_published_class_means_give_the_row_by_the_stated_rule():
    # Class means are rounded to .001: the mean is off by .0005 at most, and three standard errors by
    # 3 / sqrt(15) x sqrt(15 / 14) x .0005; both results are rounded to .0001.
    for model, expected in zip(per_class(), BY_THE_RULE.values(), strict=True):
        found = np.array([mean_and_spread(values) for values in model])
        np.testing.assert_allclose(found[:, 0], np.array(expected)[:, 0], atol=0.00055, rtol=0)
        np.testing.assert_allclose(found[:, 1], np.array(expected)[:, 1], atol=0.00046, rtol=0)


def test_what_is_missing_double_or_unknown_is_all_named():
    table = pair_table()
    for column, value in zip(table, ("B", "A", 0.5), strict=True):
        table[column].append(value)
    del table["first"][1], table["second"][1], table["accuracy"][1]
    with pytest.raises(ValueError, match=r"(?s)A / B: 2 rows.*A / C: no rows"):
        class_means(**table, classes="ABCD", condition="same")
    with pytest.raises(
        ValueError, match=r"(?s)'nucleoli' is not among the classes. Did you mean 'nucleolus'.*without a"
    ):
        class_means(first=["nucleoli"], second=["ER"], accuracy=[1.0], classes=CLASSES, condition="different")
    with pytest.raises(ValueError, match="C / D: no finite accuracy"):
        class_means(
            **{**pair_table(), "accuracy": [*list(PAIRS.values())[:5], np.nan]}, classes="ABCD", condition="same"
        )
    with pytest.raises(ValueError, match="Did you mean 'cell_free'"):
        class_means(**pair_table(), classes="ABCD", condition="cellfree")
