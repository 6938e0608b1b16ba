"""Tests of the distributions as others install them."""
