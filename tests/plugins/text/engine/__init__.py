"""Tests of the generation engine, with a real model in real processes."""
