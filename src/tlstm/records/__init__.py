"""The records of runs and of the benchmark, which hold what was measured; imports no torch."""
