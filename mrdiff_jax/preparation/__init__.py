"""From scans to slices."""
