"""The kernels of a timestep for NVIDIA GPUs, in Triton.

A step forward is a matrix product and then `step_fwd_kernel` at every location; a step backward is
`step_bwd_kernel` at every location and then a matrix product. LN takes one pass more each way,
because its statistics span all the locations of an example. The library computes the matrix
products, and `matmul_kernel` the small ones.

Layouts, with M padded to W, a multiple of eight, so that every row starts on 16 bytes:
    read        the kernel's input at every location, [slots, B, P.., K.., W]
    cell        C_t, [slots, B, P.., W]
    activation  A_t, [slots, B, P.., 4W and room for the logits]
A slot is a timestep if the backward pass needs them all, else one of two.

A program computes one row: all channels of one location of an example. `of_x` is the gradient of
the loss by x.
"""
