"""What the paper calls a tensorized LSTM, from its settings."""


def paper_name(
    rank: int, kernel_size: int, memory_convolution: bool, normalization: str | None
) -> str:
    """Such as "2D tLSTM–M" or "3D tLSTM+CN"; kernels that the paper has no name for are told.

    Args:
        rank: D.
        kernel_size: K; 2 has no feedback, which is –F.
        memory_convolution: without it, –M.
        normalization: "layer" is +LN, "channel" +CN.
    """
    known = {None: "", "layer": "+LN", "channel": "+CN"}
    return (
        f"{rank}D tLSTM"
        + ("–F" if kernel_size == 2 else "")
        + ("" if memory_convolution else "–M")
        + known.get(normalization, f", normalization {normalization}")
        + ("" if kernel_size in (2, 3) else f", K = {kernel_size}")
    )
