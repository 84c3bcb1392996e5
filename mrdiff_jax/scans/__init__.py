"""Scans on disk: their files, headers and folders."""
