"""The backward step at every location."""

import triton
import triton.language as tl

from tlstm.ops.triton.kernels.arithmetic import (
    ends_here,
    example_sum,
    gates,
    largest_and_total,
    offset,
    statistics,
    tanh,
)


@triton.jit
def gradient_of_hidden(
    of_read,
    row,
    location,
    channel,
    follows,
    WIDTH: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Return a location's gradient of H, summed over the locations that read it.

    It is zero if no step `follows`.
    """
    sums = tl.zeros([BLOCK_CHANNELS], tl.float32)
    base = (row - location).to(tl.int64)
    for each in tl.static_range(TAPS):
        reader, inside, _ = offset(location, RADIUS - each // K, RADIUS - each % K, AXES, P)
        at = of_read + ((base + reader) * TAPS + each) * WIDTH + channel
        sums += tl.load(at, (channel < WIDTH) & inside & follows, 0).to(tl.float32)
    return sums


@triton.jit
def gradient_of_projected(
    of_read,
    row,
    location,
    channel,
    follows,
    WIDTH: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Return the gradient of the projected input, at an example's first location.

    Location p reads it, at −1, with tap r − 1 − p of every axis. It is zero if no step `follows`.
    """
    at_corner = (channel < WIDTH) & (location == 0) & follows
    lines: tl.constexpr = RADIUS if RADIUS < P else P
    sums = tl.zeros([BLOCK_CHANNELS], tl.float32)
    for each in tl.static_range(lines**AXES):
        reader = each % lines + (each // lines) * P
        tap = RADIUS - 1 - each % lines
        if AXES == 2:
            tap += (RADIUS - 1 - each // lines) * K
        at = of_read + ((row.to(tl.int64) + reader) * TAPS + tap) * WIDTH + channel
        sums += tl.load(at, at_corner, 0).to(tl.float32)
    return sums


@triton.jit
def fold_border_taps(
    weights,
    location,
    tap,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
):
    """Add a convolution kernel's taps beyond the border to the taps of the boundary."""
    source, inside, _ = offset(location, tap // K - RADIUS, tap % K - RADIUS, AXES, P)
    same = (source[:, None] == source[None, :]) & inside[:, None] & (tap < TAPS)[None, :]
    return tl.sum(tl.where(same, weights[None, :], 0), axis=1)


@triton.jit
def gradient_of_cell(
    of_conv_cell,
    conv_kernels,
    row,
    location,
    channel,
    follows,
    WIDTH: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    LOGITS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
):
    """Return a location's gradient of C, summed over the locations whose C^conv reads it.

    `conv_kernels` holds their convolution kernels, folded at the border. The gradient is zero if no
    step `follows`.
    """
    wide = (channel < WIDTH) & follows
    base = (row - location).to(tl.int64)
    if LOGITS == 0:
        sums = tl.load(of_conv_cell + row.to(tl.int64) * WIDTH + channel, wide, 0)
    else:
        sums = tl.zeros([BLOCK_CHANNELS], tl.float32)
        for each in tl.static_range(TAPS):
            reader, inside, _ = offset(location, RADIUS - each // K, RADIUS - each % K, AXES, P)
            weight = tl.load(
                conv_kernels + (base + reader) * BLOCK_TAPS + each, inside & follows, 0
            )
            at = of_conv_cell + (base + reader) * WIDTH + channel
            sums += tl.load(at, wide & inside, 0) * weight
    return sums


@triton.jit
def gradient_of_logits(
    cell,
    of_conv_cell,
    logits,
    location,
    wide,
    tap,
    WIDTH: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
):
    """Return a location's convolution kernel, and its logits' gradient from that of C^conv."""
    largest, total = largest_and_total(logits, TAPS)
    weights = tl.zeros([BLOCK_TAPS], tl.float32)
    of_weights = tl.zeros([BLOCK_TAPS], tl.float32)
    for each in tl.static_range(TAPS):
        source, _, _ = offset(location, each // K - RADIUS, each % K - RADIUS, AXES, P)
        logit = tl.load(logits + each).to(tl.float32)
        weights = tl.where(tap == each, tl.exp(logit - largest) / total, weights)
        grad = tl.sum(of_conv_cell * tl.load(cell + source * WIDTH, wide, 0), axis=0)
        of_weights = tl.where(tap == each, grad, of_weights)
    return weights, weights * (of_weights - tl.sum(weights * of_weights, axis=0))


@triton.jit(do_not_specialize=["of_slot", "t", "steps", "time"])
def step_bwd_kernel(
    cell,
    activation,
    norm_gain,
    norm_bias,
    partial,
    sums,
    of_read,
    of_conv_cell,
    conv_kernels,
    of_cell,
    of_activation,
    of_projected,
    of_norm_gain,
    of_norm_bias,
    grad_output,
    grad_hidden,
    grad_cell,
    lengths,
    of_slot,
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
    NORMALIZATION: tl.constexpr,
    PASS: tl.constexpr,
    EPSILON: tl.constexpr,
    SEPARATE_MEMORY_CONV: tl.constexpr,  # by `memory_conv_bwd_kernel`
    HAS_LENGTHS: tl.constexpr,
    HAS_OUTPUT: tl.constexpr,
    HAS_HIDDEN: tl.constexpr,
    HAS_CELL: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
    BLOCK_LOCATIONS: tl.constexpr,
    FAST: tl.constexpr,
):
    """Compute the gradient of A_t from those of H_t and C_t.

    Step t + 1 leaves three gradients: `of_read`, of its kernel's input; `of_conv_cell`, of its
    C^conv; and, with `SEPARATE_MEMORY_CONV`, `of_cell`, which `memory_conv_bwd_kernel` computes of
    its C. `conv_kernels` are its memory convolution's kernels. `of_conv_cell` and `conv_kernels`
    alternate between two slots.

    All loads come before the first store: the compiler moves no load past a store, and the loads
    would wait for each other.
    """
    row = tl.program_id(0)
    location = row % LOCATIONS
    example = row // LOCATIONS
    first = row - location
    channel = tl.arange(0, BLOCK_CHANNELS)
    present = channel < M
    wide = channel < WIDTH
    slot = t.to(tl.int64)
    activation += (slot * rows + row) * ACTIVATIONS
    of_activation += (of_slot.to(tl.int64) * rows + row) * ACTIVATIONS
    in_state = row.to(tl.int64) * M + channel
    ends = ends_here(lengths, example, t, time, HAS_LENGTHS)

    follows = t + 1 < steps
    dh = gradient_of_hidden(
        of_read, row, location, channel, follows,
        WIDTH, AXES, P, K, RADIUS, TAPS, BLOCK_CHANNELS,
    )  # fmt: skip
    dx = gradient_of_projected(
        of_read, row, location, channel, follows,
        WIDTH, AXES, P, K, RADIUS, TAPS, BLOCK_CHANNELS,
    )  # fmt: skip
    batch = rows // LOCATIONS
    if HAS_OUTPUT:
        step = t - (steps - time)
        at = grad_output + (step.to(tl.int64) * batch + example) * M + channel
        answers = (location == LOCATIONS - 1) & (step >= 0)
        dh += tl.load(at, present & answers, 0).to(tl.float32)
    if HAS_HIDDEN:
        dh += tl.load(grad_hidden + in_state, present & ends, 0).to(tl.float32)

    kind = of_activation.dtype.element_ty
    if GATES == 1:
        h = tanh(tl.load(activation + channel, wide, 0).to(tl.float32), FAST)
        tl.store(of_activation + channel, (dh * (1 - h * h)).to(kind), wide)
    else:
        g, i, f, o = gates(activation, channel, WIDTH, FAST)
        old = cell + (slot * rows + first) * WIDTH + channel
        c = tl.load(cell + ((slot + 1) * rows + row) * WIDTH + channel, wide, 0)
        from_ring = ((t + 1) % 2).to(tl.int64) * rows
        to_ring = (t % 2).to(tl.int64) * rows + row
        if SEPARATE_MEMORY_CONV:
            later = tl.load(of_cell + row * WIDTH + channel, wide & follows, 0)
        else:
            later = gradient_of_cell(
                of_conv_cell + from_ring * WIDTH, conv_kernels + from_ring * BLOCK_TAPS,
                row, location, channel, follows,
                WIDTH, AXES, P, K, RADIUS, TAPS, LOGITS, BLOCK_CHANNELS, BLOCK_TAPS,
            )  # fmt: skip
        if HAS_CELL:
            later += tl.load(grad_cell + in_state, present & ends, 0).to(tl.float32)
        if NORMALIZATION > 0:
            gain_sums = tl.load(of_norm_gain + in_state, present, 0)
            bias_sums = tl.load(of_norm_bias + in_state, present, 0)
        normal = c
        if NORMALIZATION > 0:
            mean, scale = statistics(
                c, present, partial + slot * rows * 2, first,
                M, LOCATIONS, BLOCK_LOCATIONS, NORMALIZATION, EPSILON,
            )  # fmt: skip
            in_gain = channel + location * M * (NORMALIZATION == 1)
            gain_here = tl.load(norm_gain + in_gain, present, 0)
            standard = tl.where(present, (c - mean) * scale, 0)
            normal = standard * gain_here + tl.load(norm_bias + in_gain, present, 0)
        squashed = tanh(normal, FAST)
        dn = dh * o * (1 - squashed * squashed)
        dc = dn
        if NORMALIZATION > 0:
            ds = dn * gain_here
            numbers: tl.constexpr = M if NORMALIZATION == 1 else M * LOCATIONS
            if PASS < 2:
                sum_ds = tl.sum(ds, axis=0)
                sum_product = tl.sum(ds * standard, axis=0)
                if PASS == 1:
                    tl.store(sums + row * 2, sum_ds)
                    tl.store(sums + row * 2 + 1, sum_product)
            else:
                sum_ds = example_sum(sums, first, LOCATIONS, BLOCK_LOCATIONS)
                sum_product = example_sum(sums + 1, first, LOCATIONS, BLOCK_LOCATIONS)
            dc = (ds - sum_ds / numbers - standard * (sum_product / numbers)) * scale

        if PASS != 1:
            dc = tl.where(present, dc + later, 0)
            de = dc * f
            if LOGITS > 0 and not SEPARATE_MEMORY_CONV:
                tap = tl.arange(0, BLOCK_TAPS)
                weights, dq = gradient_of_logits(
                    old, de, activation + 4 * WIDTH, location, wide, tap,
                    WIDTH, AXES, P, K, RADIUS, TAPS, BLOCK_TAPS,
                )  # fmt: skip
                tl.store(of_activation + 4 * WIDTH + tap, dq.to(kind))
                weights = fold_border_taps(weights, location, tap, AXES, P, K, RADIUS, TAPS)
                tl.store(conv_kernels + to_ring * BLOCK_TAPS + tap, weights)
            if NORMALIZATION > 0:
                tl.store(of_norm_gain + in_state, gain_sums + dn * standard, present)
                tl.store(of_norm_bias + in_state, bias_sums + dn, present)
            tl.store(of_conv_cell + to_ring * WIDTH + channel, de, wide)
            at = of_activation + channel
            tl.store(at, (dc * i * (1 - g * g)).to(kind), wide)
            tl.store(at + WIDTH, (dc * g * i * (1 - i)).to(kind), wide)
            tl.store(at + 2 * WIDTH, (dc * (c - g * i) * (1 - f)).to(kind), wide)
            tl.store(at + 3 * WIDTH, (dh * squashed * o * (1 - o)).to(kind), wide)

    if PASS != 1:
        at = of_projected + ((t + 1).to(tl.int64) * batch + example) * M + channel
        tl.store(at, dx.to(of_projected.dtype.element_ty), present & (location == 0) & follows)


@triton.jit
def init_bwd_kernel(
    of_read,
    of_conv_cell,
    conv_kernels,
    of_first,
    of_projected,
    of_hidden,
    of_cell,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    LOCATIONS: tl.constexpr,
    GATES: tl.constexpr,
    LOGITS: tl.constexpr,
    SEPARATE_MEMORY_CONV: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
):
    """Write the gradients of the first projected input, H_0 and C_0 from the first step's.

    With SEPARATE_MEMORY_CONV that of C_0 is `of_first`.
    """
    row = tl.program_id(0)
    location = row % LOCATIONS
    channel = tl.arange(0, BLOCK_CHANNELS)
    in_state = row.to(tl.int64) * M + channel
    dh = gradient_of_hidden(
        of_read, row, location, channel, True,
        WIDTH, AXES, P, K, RADIUS, TAPS, BLOCK_CHANNELS,
    )  # fmt: skip
    tl.store(of_hidden + in_state, dh.to(of_hidden.dtype.element_ty), channel < M)
    dx = gradient_of_projected(
        of_read, row, location, channel, True,
        WIDTH, AXES, P, K, RADIUS, TAPS, BLOCK_CHANNELS,
    )  # fmt: skip
    at = of_projected + row // LOCATIONS * M + channel
    tl.store(at, dx.to(of_projected.dtype.element_ty), (channel < M) & (location == 0))
    if GATES == 4:
        if SEPARATE_MEMORY_CONV:
            dc = tl.load(of_first + row * WIDTH + channel, channel < M, 0)
        else:
            dc = gradient_of_cell(
                of_conv_cell, conv_kernels, row, location, channel, True,
                WIDTH, AXES, P, K, RADIUS, TAPS, LOGITS, BLOCK_CHANNELS, BLOCK_TAPS,
            )  # fmt: skip
        tl.store(of_cell + in_state, dc.to(of_cell.dtype.element_ty), channel < M)
