"""The training step in a CUDA graph: recorded once, then replayed by a launch for all its kernels.

A replay reads and writes where the recording did: the batch is copied into buffers that stay in
their place, and the weights, the gradients and the optimizer's state are changed where they lie.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from tlstm.tasks.base import Batch

WARM_UPS = 3  # passes before the recording: kernels are compiled and chosen, workspaces made


class Recording:
    """A computation on the current GPU as a CUDA graph.

    Args:
        compute: what is recorded; it must not wait for the GPU, and must read what changes from
            tensors that stay in their place. It is run a few times before.

    Attributes:
        result: what `compute` returned; every replay overwrites it.

    Raises:
        RuntimeError: it cannot be recorded; the message says how to do without.
    """

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self._timed: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        with _autocast_without_cache():
            self._record(compute)

    def replay(self) -> None:
        """Launch it once more; this does not wait for its end."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._graph.replay()
        end.record()
        self._timed.append((begin, end))

    def busy_seconds(self) -> float:
        """Wait for the last replay; seconds of the GPU that replays took since last asked."""
        timed, self._timed = self._timed, []
        if timed:
            timed[-1][1].synchronize()
        return sum(begin.elapsed_time(end) for begin, end in timed) / 1e3

    def _record(self, compute: Callable[[], Tensor]) -> None:
        _warm_up(compute)
        gc.collect()  # what is left of autograd's graphs would tie the recording to their stream
        self._graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may write checkpoints meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self.result = compute()
        except RuntimeError as error:
            first_line = str(error).partition("\n")[0]
            raise RuntimeError(
                "the training step cannot be recorded in a CUDA graph; "
                f"trainer.capture=false trains without one ({first_line})"
            ) from error


class CapturedStep:
    """An optimizer step on one batch, recorded once and replayed for every batch.

    The passes before the recording leave no trace: weights, optimizer state and what is carried are
    set back.

    Args:
        learn: an optimizer step on a batch, which returns its loss.
        optimizer: the one that steps; it must be capturable.
        batch: like those to come in shape, dtype and device.
        carried: what else `learn` changes, in place, from one batch to the next.
    """

    def __init__(
        self,
        learn: Callable[[Batch], Tensor],
        optimizer: Optimizer,
        batch: Batch,
        carried: Sequence[Tensor] = (),
    ) -> None:
        self._batch = Batch(*(part.clone() for part in batch))
        with undone(optimizer), kept(carried):
            self.recording = Recording(lambda: learn(self._batch))

    def __call__(self, batch: Batch) -> Tensor:
        """Learn from a batch.

        Returns:
            The loss; the next call overwrites it.

        Raises:
            ValueError: the batch has another shape than the recorded one.
        """
        for fixed, part in zip(self._batch, batch, strict=True):
            if fixed.shape != part.shape:
                raise ValueError(
                    f"batch must have the captured shape {list(fixed.shape)}, "
                    f"got {list(part.shape)}"
                )
            fixed.copy_(part, non_blocking=True)
        self.recording.replay()
        return self.recording.result


@contextmanager
def undone(optimizer: Optimizer) -> Iterator[None]:
    """Set weights and optimizer state back, in place, to what they were before.

    State that was made meanwhile becomes zero, which is how Adam's begins.
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
def kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Set tensors back, in place, to what they were before."""
    values = [tensor.clone() for tensor in tensors]
    yield
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def why_not(device: torch.device, world_size: int, precision: str) -> str | None:
    """Why training steps cannot be captured, None where they can.

    Args:
        device: that trains.
        world_size: number of devices.
        precision: as Lightning names it.
    """
    if device.type != "cuda":
        return f"CUDA graphs need a GPU, and this run trains on {device.type}"
    if world_size > 1:
        return "the devices exchange gradients outside of a CUDA graph"
    if precision == "16-mixed":
        return "16-mixed decides after every step, on the host, how to scale the loss"
    return None


def _autocast_without_cache() -> torch.autocast:
    """The autocast that is on, if any, without its cache: a cached weight would never be new."""
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )


def _warm_up(compute: Callable[[], Tensor]) -> None:
    """Run a computation on a stream of its own, as recordings do; random numbers are set back."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.random.fork_rng([torch.cuda.current_device()]), torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
