"""The transfer study: backbones from elsewhere on OpenCell (arXiv 2602.05527, 2604.10970)."""
