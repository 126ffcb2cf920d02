"""Training: schedules, optimiser, methods, the step, checkpoints and the loop."""
