"""What was measured: the records of runs and of the benchmark; imports no torch."""
