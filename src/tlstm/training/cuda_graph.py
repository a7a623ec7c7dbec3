"""The training step as a CUDA graph: captured once, replayed by one launch of all kernels.

A replay reads and writes the addresses of the capture: the batch is copied into fixed buffers, and
the weights, the gradients and the optimizer's state are changed in place.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from tlstm.ops.recording import set_recording
from tlstm.tasks.base import Batch

WARM_UPS = 3  # passes before the capture: kernels are compiled and chosen, workspaces allocated


class CudaGraph:
    """A computation on the current GPU as a CUDA graph.

    Args:
        compute: the computation, called several times before its capture. It must not wait for the
            GPU, and must read changing values from tensors at fixed addresses.

    Attributes:
        result: the value that `compute` returned; every replay overwrites it.

    Raises:
        RuntimeError: it cannot be captured; the message names the setting that trains without.
    """

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self._timed: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        with _autocast_without_cache():
            self._capture(compute)

    def replay(self) -> None:
        """Launch the graph without waiting for its end."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._graph.replay()
        end.record()
        self._timed.append((begin, end))

    def busy_seconds(self) -> float:
        """Wait for the last replay; return the seconds of all replays since the last call."""
        timed, self._timed = self._timed, []
        if timed:
            timed[-1][1].synchronize()
        return sum(begin.elapsed_time(end) for begin, end in timed) / 1e3

    def _capture(self, compute: Callable[[], Tensor]) -> None:
        _warm_up(compute)
        gc.collect()  # remains of autograd's graphs would tie the capture to their stream
        self._graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may write checkpoints meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self.result = compute()
        except RuntimeError as error:
            first_line = str(error).partition("\n")[0]
            raise RuntimeError(
                "the training step cannot be captured in a CUDA graph; "
                f"trainer.cuda_graph=false trains without one ({first_line})"
            ) from error


class GraphedStep:
    """An optimizer step on one batch, captured once and replayed for every batch.

    The passes before the capture leave no trace: weights, optimizer state and recurrent state are
    restored.

    Args:
        learn: takes an optimizer step on a batch and returns its loss.
        optimizer: of that step; it must be capturable.
        batch: an example in shape, dtype and device of later batches.
        recurrent_state: further tensors that `learn` changes in place from batch to batch.
    """

    def __init__(
        self,
        learn: Callable[[Batch], Tensor],
        optimizer: Optimizer,
        batch: Batch,
        recurrent_state: Sequence[Tensor] = (),
    ) -> None:
        self._batch = Batch(*(part.clone() for part in batch))
        with restore_optimizer(optimizer), restore_tensors(recurrent_state):
            self.graph = CudaGraph(lambda: learn(self._batch))

    def __call__(self, batch: Batch) -> Tensor:
        """Take a step on a batch.

        Returns:
            The loss, which the next call overwrites.

        Raises:
            ValueError: the batch has another shape than the captured one.
        """
        for fixed, part in zip(self._batch, batch, strict=True):
            if fixed.shape != part.shape:
                raise ValueError(
                    f"batch must have the captured shape {list(fixed.shape)}, "
                    f"got {list(part.shape)}"
                )
            fixed.copy_(part, non_blocking=True)
        self.graph.replay()
        return self.graph.result


@contextmanager
def restore_optimizer(optimizer: Optimizer) -> Iterator[None]:
    """Restore weights and optimizer state in place at the end of the context.

    State created in the context becomes zero, the first state of every optimizer here.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    weights = [parameter.detach().clone() for parameter in parameters]
    states = [
        {name: value.clone() for name, value in optimizer.state.get(parameter, {}).items()}
        for parameter in parameters
    ]
    yield
    with torch.no_grad():
        for parameter, weight, state in zip(parameters, weights, states, strict=True):
            parameter.copy_(weight)
            for name, value in optimizer.state[parameter].items():
                value.copy_(state.get(name, torch.zeros_like(value)))


@contextmanager
def restore_tensors(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore tensors in place at the end of the context."""
    values = [tensor.clone() for tensor in tensors]
    yield
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def restore_random_numbers(device: torch.device) -> AbstractContextManager[None]:
    """Restore the random generators of the CPU and of a device at the end of the context."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def cuda_graph_obstacle(device: torch.device, world_size: int, precision: str) -> str | None:
    """Return the reason why training steps cannot be captured, None where they can.

    Args:
        device: of the training.
        world_size: number of devices.
        precision: in Lightning's notation.
    """
    if device.type != "cuda":
        return f"CUDA graphs need a GPU, and this run trains on {device.type}"
    if world_size > 1:
        return "the devices exchange gradients outside of a CUDA graph"
    if precision == "16-mixed":
        return "16-mixed decides after every step, on the host, how to scale the loss"
    return None


def _autocast_without_cache() -> torch.autocast:
    """Return the current autocast without its cache, which would hold old weights."""
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )


def _warm_up(compute: Callable[[], Tensor]) -> None:
    """Run a computation on a side stream, as captures do; the random generators are restored."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    device = torch.device("cuda", torch.cuda.current_device())
    # Recordings of the layers would keep memory that the capture does not use
    with set_recording(0), restore_random_numbers(device), torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
