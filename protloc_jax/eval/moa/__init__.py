"""Mechanism-of-action evaluation of a compound screen: profiles of treatments, nearest neighbours, retrieval."""
