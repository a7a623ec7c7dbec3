"""The kernels of a timestep for NVIDIA GPUs, in Triton.

A step forward is a matrix product and what is done at every location (`advance`); a step
backward is what is done at every location (`retreat`) and a matrix product. LN, whose statistics
span all the locations of an example, takes one pass more each way. The matrix products are the
library's, and for small ones `product`.

Layouts, with M padded to W, a multiple of eight, so that every row starts on 16 bytes:
    read        what the kernel reads at every location, [slots, B, P.., K.., W]
    cell        C_t, [slots, B, P.., W]
    activation  A_t, [slots, B, P.., 4W and room for the logits]
A slot is a timestep where the backward pass needs them all, and one of two otherwise.

A program takes one row, a location of an example, and all its channels.
"""
