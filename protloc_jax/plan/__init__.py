"""Before and beside a run: what it will need, and how fast it goes."""
