"""Scores of held-out slices, and studies of what a method does."""
