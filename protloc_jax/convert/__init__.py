"""Weights of other projects to this one and back; nothing in here imports PyTorch or runs what a file says."""
