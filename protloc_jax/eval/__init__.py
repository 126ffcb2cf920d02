"""Evaluation: features, hand-made baselines, scores with intervals, k-NN, linear probe, attention maps."""
