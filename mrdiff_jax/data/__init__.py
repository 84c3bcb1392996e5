"""Multi-contrast MR slices: preparation as a TFDS data set, and reading with grain."""
