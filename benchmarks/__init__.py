"""Comparisons a stranger can re-run."""
