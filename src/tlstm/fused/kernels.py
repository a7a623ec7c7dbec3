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

import triton
import triton.language as tl


@triton.jit
def tanh(x, FAST: tl.constexpr):
    """The hyperbolic tangent.

    `FAST` is the hardware's, with an error of 2⁻¹¹, below what operands of half precision make.
    Otherwise exact to rounding, near zero too, where 2σ(2x) − 1 cancels.
    """
    if FAST:
        y = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        square = x * x
        series = x * (
            1 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * 62 / 2835)))
        )
        y = tl.where(tl.abs(x) < 0.25, series, 2 * tl.sigmoid(2 * x) - 1)
    return y


@triton.jit
def sigmoid(x, FAST: tl.constexpr):
    """The logistic function, by way of `tanh` where that is the hardware's."""
    return 0.5 + 0.5 * tanh(0.5 * x, FAST) if FAST else tl.sigmoid(x)


@triton.jit(do_not_specialize=["slot"])
def product(
    left,
    right,
    out,
    slot,
    rows,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """`out` = `left`[slot] · `right`, where `right` is padded with zeros to whole blocks.

    `UPCAST` is for the interpreter, whose product of bfloat16 takes their bits for numbers.
    """
    across: tl.constexpr = (COLUMNS + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    blocks: tl.constexpr = (DEPTH + BLOCK_DEPTH - 1) // BLOCK_DEPTH
    tile = tl.program_id(0)
    row = tile // across * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tile % across * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    depth = tl.arange(0, BLOCK_DEPTH)
    left += slot.to(tl.int64) * rows * DEPTH
    left += tl.minimum(row, rows - 1)[:, None] * DEPTH
    sums = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    for block in range(blocks):
        at = block * BLOCK_DEPTH + depth
        a = tl.load(left + at[None, :], (at < DEPTH)[None, :], 0)
        b = tl.load(right + at[:, None] * (across * BLOCK_COLUMNS) + column[None, :])
        if UPCAST:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        sums = tl.dot(a, b, sums, input_precision="ieee")
    tl.store(
        out + row[:, None] * COLUMNS + column[None, :],
        sums.to(out.dtype.element_ty),
        (row < rows)[:, None] & (column < COLUMNS)[None, :],
    )


@triton.jit
def pack(
    weight,
    bias,
    wide,
    wide_bias,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    GATES: tl.constexpr,
    LOGITS: tl.constexpr,
    ACTIVATIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Wʰ [O, M, K..] as the matrix of a product, [K.., W, A], and bʰ [O] as [A]; zeros between."""
    read = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # numbers the (channel, tap) pairs
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    made, real = made_by(column, M, WIDTH, GATES, LOGITS)
    at = weight + made[:, None].to(tl.int64) * (M * TAPS) + read[None, :]
    value = tl.load(at, real[:, None] & (read < M * TAPS)[None, :], 0)
    row = read % TAPS * WIDTH + read // TAPS
    at = wide + row[None, :].to(tl.int64) * ACTIVATIONS + column[:, None]
    held = (column < ACTIVATIONS)[:, None] & (read < WIDTH * TAPS)[None, :]
    tl.store(at, value.to(wide.dtype.element_ty), held)
    if tl.program_id(0) == 0:
        by = tl.load(bias + made, real, 0)
        tl.store(wide_bias + column, by.to(tl.float32), column < ACTIVATIONS)


@triton.jit
def unpack(
    wide,
    wide_bias,
    weight,
    bias,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    GATES: tl.constexpr,
    LOGITS: tl.constexpr,
    ACTIVATIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The inverse of `pack`."""
    read = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    made, real = made_by(column, M, WIDTH, GATES, LOGITS)
    held = real[:, None] & (read < M * TAPS)[None, :]
    row = read % TAPS * WIDTH + read // TAPS
    at = wide + row[None, :].to(tl.int64) * ACTIVATIONS + column[:, None]
    value = tl.load(at, held, 0)
    at = weight + made[:, None].to(tl.int64) * (M * TAPS) + read[None, :]
    tl.store(at, value.to(weight.dtype.element_ty), held)
    if tl.program_id(0) == 0:
        by = tl.load(wide_bias + column, real, 0)
        tl.store(bias + made, by.to(bias.dtype.element_ty), real)


@triton.jit
def made_by(
    column, M: tl.constexpr, WIDTH: tl.constexpr, GATES: tl.constexpr, LOGITS: tl.constexpr
):
    """Which row of Wʰ makes a column of A_t, and whether any does."""
    gate = tl.minimum(column // WIDTH, GATES)
    inside = column - gate * WIDTH
    real = inside < tl.where(gate < GATES, M, LOGITS)
    return gate * M + inside, real


@triton.jit
def offset(location, first, second, AXES: tl.constexpr, P: tl.constexpr):
    """A location moved along its axes.

    Where it comes to within the border, whether it came to a location, and whether it came to the
    corner where the projected input stands.
    """
    line = location % P + second
    inside = (line >= 0) & (line < P)
    corner = line == -1
    moved = tl.minimum(tl.maximum(line, 0), P - 1)
    if AXES == 2:
        column = location // P + first
        inside = inside & (column >= 0) & (column < P)
        corner = corner & (column == -1)
        moved += tl.minimum(tl.maximum(column, 0), P - 1) * P
    return moved, inside, corner


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
def gates(activation, bias, channel, M: tl.constexpr, WIDTH: tl.constexpr, FAST: tl.constexpr):
    """G, I, F and O of a row of A_t, which is still without its bias."""
    present = channel < M
    at = activation + channel
    by = bias + channel
    g = tl.load(at, present, 0).to(tl.float32) + tl.load(by, present, 0)
    i = tl.load(at + WIDTH, present, 0).to(tl.float32) + tl.load(by + WIDTH, present, 0)
    f = tl.load(at + 2 * WIDTH, present, 0).to(tl.float32) + tl.load(by + 2 * WIDTH, present, 0)
    o = tl.load(at + 3 * WIDTH, present, 0).to(tl.float32) + tl.load(by + 3 * WIDTH, present, 0)
    return tanh(g, FAST), sigmoid(i, FAST), sigmoid(f, FAST), sigmoid(o, FAST)


@triton.jit
def largest_and_total(logits, bias, LOGITS: tl.constexpr):
    """The largest of a row's logits, and the sum of the powers of all below it."""
    largest = float("-inf")
    for each in tl.static_range(LOGITS):
        logit = tl.load(logits + each).to(tl.float32) + tl.load(bias + each)
        largest = tl.maximum(largest, logit)
    total = 0.0
    for each in tl.static_range(LOGITS):
        logit = tl.load(logits + each).to(tl.float32) + tl.load(bias + each)
        total += tl.exp(logit - largest)
    return largest, total


@triton.jit
def channel_statistics(values, present, M: tl.constexpr):
    """The mean and the sum of squared deviations over M channels."""
    mean = tl.sum(values, axis=0) / M
    deviations = tl.where(present, values - mean, 0)
    return mean, tl.sum(deviations * deviations, axis=0)


@triton.jit
def layer_statistics(
    partial, first, M: tl.constexpr, LOCATIONS: tl.constexpr, BLOCK_LOCATIONS: tl.constexpr
):
    """The same over an example, whose rows begin with `first`, from its rows' own."""
    each = tl.arange(0, BLOCK_LOCATIONS)
    counts = each < LOCATIONS
    means = tl.load(partial + (first + each) * 2, counts, 0)
    squares = tl.load(partial + (first + each) * 2 + 1, counts, 0)
    mean = tl.sum(means, axis=0) / LOCATIONS
    apart = tl.where(counts, means - mean, 0)
    return mean, tl.sum(squares, axis=0) + M * tl.sum(apart * apart, axis=0)


@triton.jit
def example_sum(sums, first, LOCATIONS: tl.constexpr, BLOCK_LOCATIONS: tl.constexpr):
    """Of the rows of an example, every second number's sum."""
    each = tl.arange(0, BLOCK_LOCATIONS)
    return tl.sum(tl.load(sums + (first + each) * 2, each < LOCATIONS, 0), axis=0)


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
    if HAS_LENGTHS:
        ends = tl.load(lengths + example) == t + 1
    else:
        ends = t + 1 == time

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

        normal = c
        if NORMALIZATION > 0:
            in_gain = channel
            if NORMALIZATION == 1:
                mean, squares = channel_statistics(c, present, M)
                scale = tl.rsqrt(squares / M + EPSILON)
                in_gain += location * M
            else:
                partial += slot.to(tl.int64) * rows * 2
                if PASS == 1:
                    mean, squares = channel_statistics(c, present, M)
                    tl.store(partial + row * 2, mean)
                    tl.store(partial + row * 2 + 1, squares)
                else:
                    mean, squares = layer_statistics(partial, first, M, LOCATIONS, BLOCK_LOCATIONS)
                scale = tl.rsqrt(squares / (M * LOCATIONS) + EPSILON)
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


@triton.jit
def gradient_of_hidden(
    of_read,
    row,
    location,
    channel,
    follows,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """The sum over the locations that read a location, of the gradient of what they read.

    Zero where no step `follows`.
    """
    sums = tl.zeros([BLOCK_CHANNELS], tl.float32)
    base = (row - location).to(tl.int64)
    for each in tl.static_range(TAPS):
        reader, inside, _ = offset(location, RADIUS - each // K, RADIUS - each % K, AXES, P)
        at = of_read + ((base + reader) * TAPS + each) * WIDTH + channel
        sums += tl.load(at, (channel < M) & inside & follows, 0).to(tl.float32)
    return sums


@triton.jit
def folded(
    weights,
    location,
    tap,
    AXES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    RADIUS: tl.constexpr,
    TAPS: tl.constexpr,
):
    """A convolution kernel whose taps beyond the border have gone to those that they repeat."""
    source, inside, _ = offset(location, tap // K - RADIUS, tap % K - RADIUS, AXES, P)
    same = (source[:, None] == source[None, :]) & inside[:, None] & (tap < TAPS)[None, :]
    return tl.sum(tl.where(same, weights[None, :], 0), axis=1)


@triton.jit
def gradient_of_cell(
    of_mixed,
    mixing,
    row,
    location,
    channel,
    follows,
    M: tl.constexpr,
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
    """The sum over the locations that mix a location's cell in, of the mixture's gradient.

    `mixing` holds their convolution kernels, folded at the border.

    Zero where no step `follows`.
    """
    present = (channel < M) & follows
    base = (row - location).to(tl.int64)
    if LOGITS == 0:
        sums = tl.load(of_mixed + row.to(tl.int64) * WIDTH + channel, present, 0)
    else:
        sums = tl.zeros([BLOCK_CHANNELS], tl.float32)
        for each in tl.static_range(TAPS):
            mixer, inside, _ = offset(location, RADIUS - each // K, RADIUS - each % K, AXES, P)
            weight = tl.load(mixing + (base + mixer) * BLOCK_TAPS + each, inside & follows, 0)
            at = of_mixed + (base + mixer) * WIDTH + channel
            sums += tl.load(at, present & inside, 0) * weight
    return sums


@triton.jit(do_not_specialize=["of_slot", "t", "steps", "time"])
def retreat(
    cell,
    activation,
    bias,
    gain,
    shift,
    partial,
    sums,
    of_read,
    of_mixed,
    mixing,
    of_cell,
    of_activation,
    of_gain,
    of_shift,
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
    APART: tl.constexpr,  # the memory convolution's own gradients are `unmix`'s
    HAS_LENGTHS: tl.constexpr,
    HAS_OUTPUT: tl.constexpr,
    HAS_HIDDEN: tl.constexpr,
    HAS_CELL: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
    BLOCK_LOCATIONS: tl.constexpr,
    FAST: tl.constexpr,
):
    """From the gradients of the H and C that step t made, to that of its A.

    What step t + 1 left: `of_read`, the gradient of what its kernel read; `of_mixed`, that of its
    C^conv, and its convolution's kernels, `mixing`. The last two are left for step t − 1 in
    turn, in two slots that alternate. Where the memory convolution is taken `APART`, `unmix` has
    made of them the gradient of what step t + 1 had of C, `of_cell`.
    """
    row = tl.program_id(0)
    location = row % LOCATIONS
    example = row // LOCATIONS
    first = row - location
    channel = tl.arange(0, BLOCK_CHANNELS)
    present = channel < M
    slot = t.to(tl.int64)
    activation += (slot * rows + row) * ACTIVATIONS
    of_activation += (of_slot.to(tl.int64) * rows + row) * ACTIVATIONS
    in_state = row.to(tl.int64) * M + channel
    if HAS_LENGTHS:
        ends = tl.load(lengths + example) == t + 1
    else:
        ends = t + 1 == time

    follows = t + 1 < steps
    dh = gradient_of_hidden(
        of_read, row, location, channel, follows,
        M, WIDTH, AXES, P, K, RADIUS, TAPS, BLOCK_CHANNELS,
    )  # fmt: skip
    if HAS_OUTPUT:
        step = t - (steps - time)
        at = grad_output + (step.to(tl.int64) * (rows // LOCATIONS) + example) * M + channel
        answers = (location == LOCATIONS - 1) & (step >= 0)
        dh += tl.load(at, present & answers, 0).to(tl.float32)
    if HAS_HIDDEN:
        dh += tl.load(grad_hidden + in_state, present & ends, 0).to(tl.float32)

    wide = channel < WIDTH
    kind = of_activation.dtype.element_ty
    if GATES == 1:
        by = tl.load(bias + channel, present, 0)
        h = tanh(tl.load(activation + channel, present, 0).to(tl.float32) + by, FAST)
        tl.store(of_activation + channel, (dh * (1 - h * h)).to(kind), wide)
    else:
        g, i, f, o = gates(activation, bias, channel, M, WIDTH, FAST)
        old = cell + (slot * rows + first) * WIDTH + channel
        c = tl.load(cell + ((slot + 1) * rows + row) * WIDTH + channel, present, 0)
        normal = c
        if NORMALIZATION > 0:
            in_gain = channel
            if NORMALIZATION == 1:
                mean, squares = channel_statistics(c, present, M)
                scale = tl.rsqrt(squares / M + EPSILON)
                in_gain += location * M
            else:
                partial += slot * rows * 2
                mean, squares = layer_statistics(partial, first, M, LOCATIONS, BLOCK_LOCATIONS)
                scale = tl.rsqrt(squares / (M * LOCATIONS) + EPSILON)
            gain_here = tl.load(gain + in_gain, present, 0)
            standard = tl.where(present, (c - mean) * scale, 0)
            normal = standard * gain_here + tl.load(shift + in_gain, present, 0)
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
            if NORMALIZATION > 0:
                total = tl.load(of_gain + in_state, present, 0)
                tl.store(of_gain + in_state, total + dn * standard, present)
                total = tl.load(of_shift + in_state, present, 0)
                tl.store(of_shift + in_state, total + dn, present)
            from_ring = ((t + 1) % 2).to(tl.int64) * rows
            to_ring = (t % 2).to(tl.int64) * rows + row
            if APART:
                dc += tl.load(of_cell + row * WIDTH + channel, present & follows, 0)
            else:
                dc += gradient_of_cell(
                    of_mixed + from_ring * WIDTH, mixing + from_ring * BLOCK_TAPS,
                    row, location, channel, follows,
                    M, WIDTH, AXES, P, K, RADIUS, TAPS, LOGITS, BLOCK_CHANNELS, BLOCK_TAPS,
                )  # fmt: skip
            if HAS_CELL:
                dc += tl.load(grad_cell + in_state, present & ends, 0).to(tl.float32)
            dc = tl.where(present, dc, 0)
            de = dc * f
            tl.store(of_mixed + to_ring * WIDTH + channel, de, present)

            if LOGITS > 0 and not APART:
                logits = activation + 4 * WIDTH
                by = bias + 4 * WIDTH
                largest, total = largest_and_total(logits, by, LOGITS)
                tap = tl.arange(0, BLOCK_TAPS)
                weights = tl.zeros([BLOCK_TAPS], tl.float32)
                of_weights = tl.zeros([BLOCK_TAPS], tl.float32)
                for each in tl.static_range(TAPS):
                    source, _, _ = offset(location, each // K - RADIUS, each % K - RADIUS, AXES, P)
                    logit = tl.load(logits + each).to(tl.float32) + tl.load(by + each)
                    weights = tl.where(tap == each, tl.exp(logit - largest) / total, weights)
                    grad = tl.sum(de * tl.load(old + source * WIDTH, present, 0), axis=0)
                    of_weights = tl.where(tap == each, grad, of_weights)
                dq = weights * (of_weights - tl.sum(weights * of_weights, axis=0))
                tl.store(of_activation + 4 * WIDTH + tap, dq.to(kind))
                weights = folded(weights, location, tap, AXES, P, K, RADIUS, TAPS)
                tl.store(mixing + to_ring * BLOCK_TAPS + tap, weights)
            at = of_activation + channel
            tl.store(at, (dc * i * (1 - g * g)).to(kind), wide)
            tl.store(at + WIDTH, (dc * g * i * (1 - i)).to(kind), wide)
            tl.store(at + 2 * WIDTH, (dc * (c - g * i) * (1 - f)).to(kind), wide)
            tl.store(at + 3 * WIDTH, (dh * squashed * o * (1 - o)).to(kind), wide)


@triton.jit(do_not_specialize=["of_slot", "t"])
def unmix(
    cell,
    activation,
    bias,
    of_mixed,
    of_cell,
    of_activation,
    of_slot,
    t,
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
    BLOCK_LOCATIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """From the gradient of C^conv to those of C and of the logits, of an example at once.

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
    logits += tl.load(bias + 4 * WIDTH + tap, counts, 0)[None, :]
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
        present = there[:, None] & (channel < M)[None, :]
        at = place[:, None] * WIDTH + channel[None, :]
        grad = tl.load(of_mixed + first * WIDTH + at, present, 0)
        value = tl.load(cell + at, present, 0)
        of_matrix = tl.dot(grad, tl.trans(value), of_matrix, input_precision=PRECISION)
        of_value = tl.dot(tl.trans(matrix), grad, input_precision=PRECISION)
        tl.store(of_cell + first * WIDTH + at, of_value, present)

    of_weights = tl.zeros([BLOCK_LOCATIONS, BLOCK_TAPS], tl.float32)
    for each in tl.static_range(TAPS):
        source, _, _ = offset(place, each // K - RADIUS, each % K - RADIUS, AXES, P)
        grad = tl.sum(tl.where(source[:, None] == place[None, :], of_matrix, 0), axis=1)
        of_weights = tl.where((tap == each)[None, :], grad[:, None], of_weights)
    dq = weights * (of_weights - tl.sum(weights * of_weights, axis=1)[:, None])
    at = of_activation + (of_slot.to(tl.int64) * rows + first) * ACTIVATIONS + in_logits
    tl.store(at, dq.to(of_activation.dtype.element_ty), there[:, None])


@triton.jit
def arrive(
    of_read,
    of_mixed,
    mixing,
    of_first,
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
    APART: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
):
    """The gradients of H_0 and C_0, from what the first step left, `of_first` where APART."""
    row = tl.program_id(0)
    location = row % LOCATIONS
    channel = tl.arange(0, BLOCK_CHANNELS)
    in_state = row.to(tl.int64) * M + channel
    dh = gradient_of_hidden(
        of_read, row, location, channel, True,
        M, WIDTH, AXES, P, K, RADIUS, TAPS, BLOCK_CHANNELS,
    )  # fmt: skip
    tl.store(of_hidden + in_state, dh.to(of_hidden.dtype.element_ty), channel < M)
    if GATES == 4:
        if APART:
            dc = tl.load(of_first + row * WIDTH + channel, channel < M, 0)
        else:
            dc = gradient_of_cell(
                of_mixed, mixing, row, location, channel, True,
                M, WIDTH, AXES, P, K, RADIUS, TAPS, LOGITS, BLOCK_CHANNELS, BLOCK_TAPS,
            )  # fmt: skip
        tl.store(of_cell + in_state, dc.to(of_cell.dtype.element_ty), channel < M)
