"""The memory convolution's gradients in a separate kernel, for many examples."""

import triton
import triton.language as tl

from tlstm.ops.triton.kernels.arithmetic import offset


@triton.jit(do_not_specialize=["of_slot", "t"])
def memory_conv_bwd_kernel(
    cell,
    activation,
    of_conv_cell,
    of_cell,
    of_activation,
    of_slot,
    t,
    rows,
    WIDTH: tl.constexpr,
    ACTIVATIONS: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    LOCATIONS: tl.constexpr,
    BLOCK_LOCATIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradients of C and of the logits from that of C^conv, for a whole example.

    The convolution is a matrix between the locations, and its gradients are matrix products.
    """
    first = tl.program_id(0) * LOCATIONS
    place = tl.arange(0, BLOCK_LOCATIONS)
    there = place < LOCATIONS
    tap = tl.arange(0, BLOCK_TAPS)
    counts = tap < TAPS
    row = t.to(tl.int64) * rows + first
    cell += row * WIDTH
    in_logits = place[:, None] * ACTIVATIONS + 4 * WIDTH + tap[None, :]
    held = there[:, None] & counts[None, :]
    logits = tl.load(activation + row * ACTIVATIONS + in_logits, held, 0).to(tl.float32)
    logits = tl.where(counts[None, :], logits, float("-inf"))
    powers = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    weights = powers / tl.sum(powers, axis=1)[:, None]

    matrix = tl.zeros([BLOCK_LOCATIONS, BLOCK_LOCATIONS], tl.float32)
    of_matrix = tl.zeros([BLOCK_LOCATIONS, BLOCK_LOCATIONS], tl.float32)
    for each in tl.static_range(TAPS):
        source, _, _ = offset(place, each // K - RADIUS, each % K - RADIUS, AXES, P)
        weight = tl.sum(tl.where((tap == each)[None, :], weights, 0), axis=1)
        matrix += tl.where(source[:, None] == place[None, :], weight[:, None], 0)
    matrix = tl.where(there[:, None], matrix, 0)
    for start in range(0, WIDTH, BLOCK_CHANNELS):
        channel = start + tl.arange(0, BLOCK_CHANNELS)
        wide = there[:, None] & (channel < WIDTH)[None, :]
        at = place[:, None] * WIDTH + channel[None, :]
        grad = tl.load(of_conv_cell + first * WIDTH + at, wide, 0)
        value = tl.load(cell + at, wide, 0)
        of_matrix = tl.dot(grad, tl.trans(value), of_matrix, input_precision=PRECISION)
        of_value = tl.dot(tl.trans(matrix), grad, input_precision=PRECISION)
        tl.store(of_cell + first * WIDTH + at, of_value, wide)

    of_weights = tl.zeros([BLOCK_LOCATIONS, BLOCK_TAPS], tl.float32)
    for each in tl.static_range(TAPS):
        source, _, _ = offset(place, each // K - RADIUS, each % K - RADIUS, AXES, P)
        grad = tl.sum(tl.where(source[:, None] == place[None, :], of_matrix, 0), axis=1)
        of_weights = tl.where((tap == each)[None, :], grad[:, None], of_weights)
    dq = weights * (of_weights - tl.sum(weights * of_weights, axis=1)[:, None])
    at = of_activation + (of_slot.to(tl.int64) * rows + first) * ACTIVATIONS + in_logits
    tl.store(at, dq.to(of_activation.dtype.element_ty), there[:, None])
