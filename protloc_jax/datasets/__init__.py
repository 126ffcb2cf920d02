"""From raw files (or the simulator) to a manifest and records; one file a data set."""
