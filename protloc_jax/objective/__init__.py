"""Pure losses and diagnostics: arrays in, scalars out."""
