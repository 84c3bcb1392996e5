"""MRDiff, the paper's method."""
