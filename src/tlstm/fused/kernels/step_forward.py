"""What a step does at every location, forward."""

import triton
import triton.language as tl

from tlstm.fused.kernels.arithmetic import (
    channel_statistics,
    ends_here,
    gates,
    largest_and_total,
    offset,
    statistics,
    tanh,
)


@triton.jit
def spread(
    read,
    hidden,
    projected,
    row,
    location,
    channel,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
):
    """Write a location's H where the kernel reads it, and what it reads beyond the border itself.

    Beyond the border there are zeros and, at the corner before the first location, the projected
    input of the example at `projected`.
    """
    wide = channel < WIDTH
    kind = read.dtype.element_ty
    base = (row - location).to(tl.int64)
    for each in tl.static_range(TAPS):
        reader, inside, _ = offset(location, RADIUS - each // K, RADIUS - each % K, AXES, P)
        at = read + ((base + reader) * TAPS + each) * WIDTH + channel
        tl.store(at, hidden.to(kind), wide & inside)
        _, inside, corner = offset(location, each // K - RADIUS, each % K - RADIUS, AXES, P)
        x = tl.load(projected + channel, (channel < M) & corner, 0)
        at = read + ((base + location) * TAPS + each) * WIDTH + channel
        tl.store(at, x.to(kind), wide & (inside == 0))


@triton.jit
def enter(
    read,
    hidden,
    projected,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    LOCATIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """From H_0 and the first input to what the first step's kernel reads."""
    row = tl.program_id(0)
    location = row % LOCATIONS
    channel = tl.arange(0, BLOCK_CHANNELS)
    h = tl.load(hidden + row.to(tl.int64) * M + channel, channel < M, 0)
    spread(
        read, h, projected + row // LOCATIONS * M, row, location, channel,
        M, WIDTH, AXES, P, K, RADIUS, TAPS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["now", "after", "slot", "t", "steps", "time"])
def advance(
    read,
    cell,
    activation,
    bias,
    gain,
    shift,
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
    """From A_t and C_{t−1} to C_t and H_t, and to what the next step's kernel reads."""
    row = tl.program_id(0)
    location = row % LOCATIONS
    example = row // LOCATIONS
    first = row - location
    channel = tl.arange(0, BLOCK_CHANNELS)
    present = channel < M
    activation += (slot.to(tl.int64) * rows + row) * ACTIVATIONS
    in_state = row.to(tl.int64) * M + channel
    ends = ends_here(lengths, example, t, time, HAS_LENGTHS)

    if GATES == 1:
        by = tl.load(bias + channel, present, 0)
        h = tanh(tl.load(activation + channel, present, 0).to(tl.float32) + by, FAST)
    else:
        g, i, f, o = gates(activation, bias, channel, M, WIDTH, FAST)
        new = cell + (after.to(tl.int64) * rows + row) * WIDTH + channel
        if PASS == 2:
            c = tl.load(new, present, 0)
        else:
            old = cell + (now.to(tl.int64) * rows + first) * WIDTH + channel
            if LOGITS > 0:
                logits = activation + 4 * WIDTH
                by = bias + 4 * WIDTH
                largest, total = largest_and_total(logits, by, LOGITS)
                kept = tl.zeros([BLOCK_CHANNELS], tl.float32)
                for each in tl.static_range(TAPS):
                    source, _, _ = offset(location, each // K - RADIUS, each % K - RADIUS, AXES, P)
                    logit = tl.load(logits + each).to(tl.float32) + tl.load(by + each)
                    value = tl.load(old + source * WIDTH, present, 0)
                    kept += tl.exp(logit - largest) * value
                kept /= total
            else:
                kept = tl.load(old + location * WIDTH, present, 0)
            c = tl.where(present, g * i + kept * f, 0)
            tl.store(new, c, present)
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
                in_gain = channel + location * M * (NORMALIZATION == 1)
                normal = (c - mean) * scale * tl.load(gain + in_gain, present, 0)
                normal += tl.load(shift + in_gain, present, 0)
            h = tanh(normal, FAST) * o

    if PASS != 1:
        h = tl.where(present, h, 0)
        tl.store(last_hidden + in_state, h.to(last_hidden.dtype.element_ty), present & ends)
        batch = rows // LOCATIONS
        step = t - (steps - time)
        at = output + (step.to(tl.int64) * batch + example) * M + channel
        answers = (location == LOCATIONS - 1) & (step >= 0)
        tl.store(at, h.to(output.dtype.element_ty), present & answers)
        if t + 1 < steps:
            spread(
                read + after.to(tl.int64) * rows * TAPS * WIDTH, h,
                projected + ((t + 1).to(tl.int64) * batch + example) * M,
                row, location, channel, M, WIDTH, AXES, P, K, RADIUS, TAPS,
            )  # fmt: skip
