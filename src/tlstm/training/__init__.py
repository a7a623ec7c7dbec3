"""How one run is trained: made ready, stepped, watched, saved and ended."""
