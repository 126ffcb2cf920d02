"""Knowledge-guided profiling of cell lines that pretraining never saw (Chen et al. 2025, arXiv:2507.10737)."""
