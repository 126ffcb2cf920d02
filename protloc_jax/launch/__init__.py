"""How the processes of a run start, hear of their end, and end together."""
