"""The other models of the paper's tables and of its Figure 7, a file each: their equations."""
