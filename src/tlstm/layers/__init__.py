"""Networks that are trained: the stacks compared with, and what stands around every core."""
