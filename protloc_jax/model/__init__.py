"""The vision transformer: configuration, stem, position tables, blocks, heads, FLOP count and the encoder."""
