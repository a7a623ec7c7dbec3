"""The configurations and tasks of the paper: names, labels and sizes."""

from typing import Literal, NamedTuple


class Model(NamedTuple):
    """A configuration of the paper; the same as `conf/model/<name>.yaml`.

    A rank of 1 is a stack.
    """

    label: str
    rank: int
    kernel_size: int = 3
    memory_convolution: bool = True
    normalization: Literal["channel", "layer"] | None = None


class Task(NamedTuple):
    """The sizes of a task [paper].

    Attributes:
        input_size: symbols that the input is made of.
        batch_size: B.
        timesteps: T of a sample; of a chunk, where the state is carried on.
        depths: L in the paper's figure.
        channels: M, where every configuration has the same.
    """

    input_size: int
    batch_size: int
    timesteps: int
    depths: tuple[int, ...]
    channels: int | None


MODELS = {
    "slstm": Model("sLSTM", rank=1, kernel_size=0, memory_convolution=False),
    "tlstm_2d": Model("2D tLSTM", rank=2),
    "tlstm_2d_no_memory_convolution": Model("2D tLSTM–M", rank=2, memory_convolution=False),
    "tlstm_2d_no_feedback": Model("2D tLSTM–F", rank=2, kernel_size=2),
    "tlstm_3d": Model("3D tLSTM", rank=3),
    "tlstm_3d_ln": Model("3D tLSTM+LN", rank=3, normalization="layer"),
    "tlstm_3d_cn": Model("3D tLSTM+CN", rank=3, normalization="channel"),
}
# Permuted MNIST has the sizes of MNIST: it is measured once
TASKS = {
    "wikipedia": Task(205, 100, 50, (1, 2, 3, 4), None),
    "addition": Task(11, 15, 49, (1, 4, 7, 10), 400),
    "memorization": Task(65, 15, 43, (1, 4, 7, 10), 100),
    "mnist": Task(1, 50, 784, (1, 3, 5), 100),
}
TASK_TITLES = {
    "wikipedia": "Wikipedia",
    "addition": "addition",
    "memorization": "memorization",
    "mnist": "MNIST",
}


def paper_name(
    rank: int, kernel_size: int, memory_convolution: bool, normalization: str | None
) -> str:
    """Return a name like "2D tLSTM–M" or "3D tLSTM+CN"; others than the paper's kernels are named.

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
