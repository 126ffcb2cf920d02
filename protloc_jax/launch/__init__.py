"""Runs of several processes: where this one stands, how they meet, and how they part."""
