"""Records, splits, sampling and loading. NumPy and Grain only: importing this package leaves jax unloaded."""
