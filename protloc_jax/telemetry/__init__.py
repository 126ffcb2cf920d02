"""What a run tells while it runs: speed, time left, metrics. Never changes what the run does."""
