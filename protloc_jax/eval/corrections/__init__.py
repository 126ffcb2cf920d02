"""Normalisation and batch correction of feature tables: fitted on control rows, saved, applied to other tables.

    correction = fit("standardise:plate+whiten:lambda=1,moment=n", table, controls_of(table.obs, ["role=dmso"]))
    correction.save("correction.npz")
    corrected = load("correction.npz").apply(next_months_table, controls=its_controls)

`steps` lists the words; sums are float64, results float32.
"""

from protloc_jax.eval.corrections.control_rows import controls_of, share_of
from protloc_jax.eval.corrections.correction import Correction, fit, load
from protloc_jax.eval.corrections.fitted_rows import FITTED_ON
from protloc_jax.eval.corrections.steps import parse, text_of

__all__ = ["FITTED_ON", "Correction", "controls_of", "fit", "load", "parse", "share_of", "text_of"]
