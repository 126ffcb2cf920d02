"""Figures and self-contained HTML pages. Takes tables and arrays; knows no study."""
