"""Fraction curves, forest plots, paired dots and maps: what is drawn where, read back from the figures."""

from __future__ import annotations

import io

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from protloc_jax.report import curve_plots, map_plots
from protloc_jax.report.curve_plots import Line, Panel, forest, fraction_curves, paired_dots
from protloc_jax.report.plots import PALETTE


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were turned into PNG bytes."""
    figures = []
    for module in (curve_plots, map_plots):
        real = module.figure_bytes
        monkeypatch.setattr(module, "figure_bytes", lambda figure, real=real: figures.append(figure) or real(figure))
    return figures


def panel(title="a", fractions=(0.1, 1.0), **other):
    n = len(fractions)
    lines = {
        "frozen": Line([0.5] * n, [0.4] * n, [0.6] * n),
        "fine-tuned": Line([0.3] * (n - 1) + [0.8], *[[np.nan] * n] * 2),
    }
    return Panel(title, fractions, lines, **other)


def texts(axes):
    return [t.get_text() for t in axes.texts]


def test_fraction_curves_mark_crossover_and_published_values(drawn):
    png = fraction_curves(
        [panel(marks={"crossover": 0.25}, levels={"published": 0.82}), panel("b\nc")], note="synthetic"
    )
    assert png.startswith(b"\x89PNG")
    first, second = drawn[0].axes
    lines = {line.get_label(): line for line in first.lines}
    np.testing.assert_array_equal(lines["fine-tuned"].get_ydata(), [0.3, 0.8])
    assert list(lines["crossover"].get_xdata()) == [0.25, 0.25]
    assert texts(first) == ["published"] and first.texts[0].xy == (0, 0.82)
    assert first.get_xscale() == "log" and [t.get_text() for t in first.get_xticklabels()] == ["10 %", "100 %"]
    assert first.get_ylim() == second.get_ylim() and second.get_title() == "b\nc"
    assert "crossover" not in [line.get_label() for line in second.lines]
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == ["frozen", "fine-tuned", "crossover"]


def test_unknown_points_break_no_curve_and_zero_is_drawn(drawn):
    line = Line([0.2, np.nan, 0.6], [0.1, np.nan, 0.5], [0.3, np.nan, 0.7])
    fraction_curves([Panel("a", (0.0, 0.1, 1.0), {"frozen": line})])
    (axes,) = drawn[0].axes
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0.0, 1.0])
    assert axes.get_xscale() == "symlog"
    left, right = axes.get_xlim()
    assert left < 0 and right > 1


def test_curves_that_do_not_fit_are_all_named():
    bad = Panel("a", (0.1, 1.0), {"frozen": Line([1], [1], [1]), "ok": Line([1, 1], [1, 1], [1, 1])})
    with pytest.raises(ValueError, match="'a', line 'frozen', 'b', line 'x'"):
        fraction_curves([bad, Panel("b", (), {"x": Line([1], [], [])})])
    with pytest.raises(ValueError, match="no panels"):
        fraction_curves([])


def test_forest_fills_significant_marks_only(drawn):
    rows = [("a − b", 0.05, 0.02, 0.08, True), ("c − d", 0.01, -0.02, 0.04, False), ("e", -0.03, np.nan, np.nan, True)]
    forest(rows, label="difference")
    (axes,) = drawn[0].axes
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [m.get_xdata()[0] for m in marks] == [0.05, 0.01, -0.03]
    assert [m.get_markerfacecolor() for m in marks] == [PALETTE[0], "white", PALETTE[1]]
    heights = [m.get_ydata()[0] for m in marks]
    assert heights == sorted(heights, reverse=True)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a − b", "c − d", "e"]
    assert texts(axes) == ["+0.050  [+0.020, +0.080]", "+0.010  [-0.020, +0.040]", "-0.030"]
    with pytest.raises(ValueError, match="no differences"):
        forest([], label="x")


def test_long_names_are_wrapped_at_spaces_and_rows_grow(drawn):
    forest([("one-two " * 20, 0.1, 0.0, 0.2, False), ("short", 0.1, 0.0, 0.2, False)], label="x", wrap=40)
    (axes,) = drawn[0].axes
    name = axes.get_yticklabels()[0].get_text()
    assert name.count("\n") == 3 and all(word == "one-two" for word in name.split())


def test_paired_dots_show_published_values_beside(drawn):
    rows = [
        ("a", {"frozen": (0.5, 0.4, 0.6), "tuned": (0.7, 0.6, 0.8)}, {"frozen": 0.55}),
        ("b", {"tuned": (0.3, 0.2, 0.4)}, {}),
    ]
    paired_dots(rows, label="macro-F1")
    (axes,) = drawn[0].axes
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    assert [d.get_xdata()[0] for d in diamonds] == [0.55] and diamonds[0].get_color() == PALETTE[0]
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == ["frozen", "tuned", "published"]
    with pytest.raises(ValueError, match="no rows"):
        paired_dots([], label="x")


def test_maps_colour_classes_alike_and_leave_others_grey(drawn):
    xy = np.random.default_rng(0).normal(size=(6, 2))
    png = map_plots.feature_maps(
        {"one": (xy, ["a", "b", "", "a", "", "b"]), "two": (xy[:2], ["b", "b"])}, note="synthetic"
    )
    assert min(np.asarray(Image.open(io.BytesIO(png))).shape[:2]) > 100
    one, two = drawn[0].axes

    def points(axes):
        return {
            matplotlib.colors.to_hex(c.get_facecolor()[0]): len(c.get_offsets())
            for c in axes.collections
            if len(c.get_offsets())
        }

    grey = "#b3bac1"
    colours = points(one)
    assert colours[grey] == 2 and sorted(colours.values()) == [2, 2, 2]
    (colour_of_b,) = points(two)
    assert colours[colour_of_b] == 2 and colour_of_b != grey
    at = next(c for c in one.collections if matplotlib.colors.to_hex(c.get_facecolor()[0]) == colour_of_b)
    np.testing.assert_array_equal(at.get_offsets(), xy[[1, 5]])
    assert [t.get_text() for t in drawn[0].legends[0].get_texts()] == ["a", "b", "no label or several"]
    with pytest.raises(ValueError, match="outside the classes: b"):
        map_plots.feature_maps({"one": (xy[:2], ["a", "b"])}, classes=["a"])
