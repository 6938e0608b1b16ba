"""Tests of the text plugin; a package, so that its modules may be called like those of other tests."""
