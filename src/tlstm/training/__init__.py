"""The training of one run: made ready, stepped, watched, saved and ended."""
