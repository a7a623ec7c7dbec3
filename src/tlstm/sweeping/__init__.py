"""The training of many runs: points of a sweep file, their processes and GPUs, their display."""
