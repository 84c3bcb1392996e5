"""From a trained run and scans to a synthesised scan."""
