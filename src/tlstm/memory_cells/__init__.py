"""Figure 6: what the memory cell of a trained model holds while it reads an example.

`python -m tlstm.memory_cells` takes it from runs' checkpoints and stores it; this needs torch.
`python -m tlstm.figures fig6` draws what is stored; this needs neither torch nor checkpoints.
"""
