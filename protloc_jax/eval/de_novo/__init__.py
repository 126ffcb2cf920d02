"""How well perturbations are recognised in a cell line that pretraining never saw."""
