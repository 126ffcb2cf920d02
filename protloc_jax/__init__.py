"""Self-supervised learning on protein-localization microscopy in JAX."""

__version__ = "0.1.0"
