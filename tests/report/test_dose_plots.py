"""Dose-response panels: one a compound, with and without a curve; equal data give equal bytes."""

from protloc_jax.report.dose_plots import dose_panels


def test_panels_are_drawn_for_any_number_of_compounds():
    doses = [{"dose": d, "distance": d**0.5, "limit": 1.2, "outside": d**0.5 > 1.2} for d in (0.1, 1.0, 10.0, 30.0)]
    hill = {"bottom": 0.1, "top": 6.0, "ec50": 5.0, "slope": 1.0, "r2": 0.9}
    one = {"compound": "a", "moa": "X", "doses": doses, "hill": hill}
    other = {"compound": "b", "moa": "", "doses": doses[:1], "hill": {"failed": "4 doses are needed, there are 1"}}
    png = dose_panels([one, other])
    assert png.startswith(b"\x89PNG") and png == dose_panels([one, other])
    assert png != dose_panels([{**one, "hill": {"failed": "why"}}, other])
    assert dose_panels([one] * 6, note="(synthetic images)").startswith(b"\x89PNG")
