"""Background robustness: does the embedding see the cell, or its neighbours?"""
