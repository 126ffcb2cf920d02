"""Evaluation: features, hand-made baselines, splits, scores with intervals, k-NN, linear probe, attention maps."""
