"""The background study: single-cell features when the cell's neighbours are swapped, and what helps against it."""
