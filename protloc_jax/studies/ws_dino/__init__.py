"""The study of weak labels on BBBC021 (WS-DINO, arXiv 2209.07819)."""
