"""Runnable comparisons: each prints a table of ratios against a limit or a peer measured in the same run."""
