"""The forward step at every location."""

import triton
import triton.language as tl

from tlstm.ops.triton.kernels.arithmetic import (
    channel_statistics,
    ends_here,
    gates,
    largest_and_total,
    offset,
    statistics,
    tanh,
)


@triton.jit
def load_projected(
    projected, location, channel, M: tl.constexpr, AXES: tl.constexpr, P: tl.constexpr,
    RADIUS: tl.constexpr,
):  # fmt: skip
    """Return the projected input of an example at the locations that read it, else zeros."""
    near = location % P < RADIUS
    if AXES == 2:
        near = near & (location // P < RADIUS)
    return tl.load(projected + channel, (channel < M) & near, 0)


@triton.jit
def scatter_hidden(
    read,
    hidden,
    projected,
    row,
    location,
    channel,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    READ: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
):
    """Write a location's H to the kernel inputs of its readers, and its own border.

    Beyond the border there are zeros and, at the corner before the first location, the projected
    input. A one follows the kernel's input: it multiplies the bias among the weights, and gives
    the bias's gradient in the product of theirs. Seven zeros fill up.
    """
    wide = channel < WIDTH
    kind = read.dtype.element_ty
    first = read + (row - location).to(tl.int64) * READ
    own = first + location * READ
    for each in tl.static_range(TAPS):
        reader, inside, _ = offset(location, RADIUS - each // K, RADIUS - each % K, AXES, P)
        at = first + reader * READ + each * WIDTH + channel
        tl.store(at, hidden.to(kind), wide & inside)
        _, inside, corner = offset(location, each // K - RADIUS, each % K - RADIUS, AXES, P)
        x = tl.where(corner, projected, 0)
        tl.store(own + each * WIDTH + channel, x.to(kind), wide & (inside == 0))
    beyond = tl.arange(0, 8)
    tl.store(own + TAPS * WIDTH + beyond, (beyond == 0).to(tl.float32).to(kind))


@triton.jit
def init_fwd_kernel(
    read,
    kept_cell,
    hidden,
    cell,
    projected,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    READ: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    LOCATIONS: tl.constexpr,
    GATES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write the first step's kernel input and memory cell from H_0, C_0 and the first input."""
    row = tl.program_id(0)
    location = row % LOCATIONS
    channel = tl.arange(0, BLOCK_CHANNELS)
    in_state = row.to(tl.int64) * M + channel
    h = tl.load(hidden + in_state, channel < M, 0)
    x = load_projected(projected + row // LOCATIONS * M, location, channel, M, AXES, P, RADIUS)
    scatter_hidden(read, h, x, row, location, channel, M, WIDTH, READ, AXES, P, K, RADIUS, TAPS)
    if GATES == 4:
        c = tl.load(cell + in_state, channel < M, 0)
        at = kept_cell + row.to(tl.int64) * WIDTH + channel
        tl.store(at, c.to(tl.float32), channel < WIDTH)


@triton.jit(do_not_specialize=["now", "after", "slot", "t", "steps", "time"])
def step_fwd_kernel(
    read,
    cell,
    activation,
    norm_gain,
    norm_bias,
    partial,
    projected,
    output,
    last_hidden,
    last_cell,
    lengths,
    now,
    after,
    slot,
    t,
    steps,
    time,
    rows,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    READ: tl.constexpr,
    ACTIVATIONS: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    LOCATIONS: tl.constexpr,
    GATES: tl.constexpr,
    LOGITS: tl.constexpr,
    NORMALIZATION: tl.constexpr,  # 0: none, 1: channel, 2: layer
    PASS: tl.constexpr,  # 0: all at once; 1: up to the statistics; 2: from them on
    EPSILON: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_LOCATIONS: tl.constexpr,
    FAST: tl.constexpr,
):
    """Compute C_t and H_t from A_t and C_{t−1}, and write the next step's kernel input."""
    row = tl.program_id(0)
    location = row % LOCATIONS
    example = row // LOCATIONS
    first = row - location
    channel = tl.arange(0, BLOCK_CHANNELS)
    present = channel < M
    wide = channel < WIDTH
    activation += (slot.to(tl.int64) * rows + row) * ACTIVATIONS
    in_state = row.to(tl.int64) * M + channel
    ends = ends_here(lengths, example, t, time, HAS_LENGTHS)
    # Loads up here do not wait for the stores further down
    batch = rows // LOCATIONS
    following = tl.minimum(t + 1, steps - 1).to(tl.int64)
    x = load_projected(
        projected + (following * batch + example) * M, location, channel, M, AXES, P, RADIUS
    )
    if NORMALIZATION > 0:
        in_gain = channel + location * M * (NORMALIZATION == 1)
        gain_here = tl.load(norm_gain + in_gain, present, 0)
        bias_here = tl.load(norm_bias + in_gain, present, 0)

    if GATES == 1:
        h = tanh(tl.load(activation + channel, wide, 0).to(tl.float32), FAST)
    else:
        g, i, f, o = gates(activation, channel, WIDTH, FAST)
        new = cell + (after.to(tl.int64) * rows + row) * WIDTH + channel
        if PASS == 2:
            c = tl.load(new, wide, 0)
        else:
            old = cell + (now.to(tl.int64) * rows + first) * WIDTH + channel
            if LOGITS > 0:
                logits = activation + 4 * WIDTH
                largest, total = largest_and_total(logits, LOGITS)
                kept = tl.zeros([BLOCK_CHANNELS], tl.float32)
                for each in tl.static_range(TAPS):
                    source, _, _ = offset(location, each // K - RADIUS, each % K - RADIUS, AXES, P)
                    logit = tl.load(logits + each).to(tl.float32)
                    value = tl.load(old + source * WIDTH, wide, 0)
                    kept += tl.exp(logit - largest) * value
                kept /= total
            else:
                kept = tl.load(old + location * WIDTH, wide, 0)
            c = tl.where(present, g * i + kept * f, 0)
            tl.store(new, c, wide)
            tl.store(last_cell + in_state, c.to(last_cell.dtype.element_ty), present & ends)

        partial += slot.to(tl.int64) * rows * 2
        if PASS == 1:
            mean, squares = channel_statistics(c, present, M)
            tl.store(partial + row * 2, mean)
            tl.store(partial + row * 2 + 1, squares)
        else:
            normal = c
            if NORMALIZATION > 0:
                mean, scale = statistics(
                    c, present, partial, first,
                    M, LOCATIONS, BLOCK_LOCATIONS, NORMALIZATION, EPSILON,
                )  # fmt: skip
                normal = (c - mean) * scale * gain_here + bias_here
            h = tanh(normal, FAST) * o

    if PASS != 1:
        h = tl.where(present, h, 0)
        tl.store(last_hidden + in_state, h.to(last_hidden.dtype.element_ty), present & ends)
        step = t - (steps - time)
        at = output + (step.to(tl.int64) * batch + example) * M + channel
        answers = (location == LOCATIONS - 1) & (step >= 0)
        tl.store(at, h.to(output.dtype.element_ty), present & answers)
        if t + 1 < steps:
            scatter_hidden(
                read + after.to(tl.int64) * rows * READ, h, x, row, location, channel,
                M, WIDTH, READ, AXES, P, K, RADIUS, TAPS,
            )  # fmt: skip
