"""Passes over a sequence that come again: recorded once, then replayed by one launch.

On a GPU a recording is a CUDA graph, which reads and writes memory of its own. Inputs are copied
in, and results are copied out. The tensors that the backward pass reads are the largest, and are
lent instead: until autograd has dropped the last of them, no other call gets the recording. Weights
are read where they lie, so that a recording serves only calls with weights at the same addresses.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from threading import RLock
from typing import NamedTuple

import torch

from tlstm.ops.recorder import Inputs, Recorder, Results, recorder_for

Forward = Callable[..., Results]  # from `copied` and `read`
Backward = Callable[..., Results]  # from `grads`, `copied`, `read` and `saved`

COPIED = 3  # results of a forward pass that are copied out; the further ones are lent

log = logging.getLogger(__name__)


class Call(NamedTuple):
    """The properties of a forward pass; a recording serves the calls that agree in all of them.

    Attributes:
        options: the arguments that are no tensors.
        circumstances: device, stream and arithmetic.
        copied: shape and dtype of each input that is copied.
        read: address, shape and dtype of each input that is read where it lies.
    """

    options: Hashable
    circumstances: Hashable
    copied: Hashable
    read: Hashable


class Recording:
    """A recorded computation with its inputs and results in memory of its own.

    Args:
        recorder: of the inputs' device.
        compute: the computation.
        inputs: contiguous examples of its inputs.
    """

    def __init__(
        self, recorder: Recorder, compute: Callable[[Inputs], Results], inputs: Inputs
    ) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.inputs = tuple(None if each is None else each.clone() for each in inputs)
            self.results, self._replay = recorder.record(partial(compute, self.inputs))

    def __call__(self, inputs: Inputs) -> None:
        """Copy the inputs in, and compute the results again."""
        given = [each for each in inputs if each is not None]
        torch._foreach_copy_([each for each in self.inputs if each is not None], given)
        self._replay()


class Slot:
    """A recorded forward pass, and the backward passes from the tensors that it lends.

    Args:
        call: the calls that it serves.
        recorder: of the device.
        compute: the forward pass, from `copied` and `read`.
        copied: examples of the inputs that are copied.
        read: the inputs that are read where they lie.

    Attributes:
        call: the calls that it serves.
        lends: the addresses that it lends.
        used: the time of its last use, in calls.
    """

    def __init__(
        self, call: Call, recorder: Recorder, compute: Forward, copied: Inputs, read: Inputs
    ) -> None:
        self.call, self.used = call, 0
        self._recorder = recorder
        self._forward = Recording(recorder, partial(compute, read=_aliases(read)), copied)
        self._lent = self._forward.results[COPIED:]
        self.lends = _addresses(self._lent)
        self._storages = [each.untyped_storage() for each in self._lent]
        self._backward: dict[Hashable, Recording] = {}

    def is_free(self) -> bool:
        """Return True if nobody else holds the memory that is lent."""
        own = 2  # references: by the tensor, and by Python's object of the storage
        return all(torch._C._storage_Use_Count(each._cdata) <= own for each in self._storages)

    def forward(self, copied: Inputs) -> Results:
        """Replay the forward pass; the slot is not free until its last results are dropped."""
        lent = [each.detach() for each in self._lent]
        self._forward(copied)
        return (*_copies(self._forward.results[:COPIED]), *lent)

    def backward(self, compute: Backward, grads: Inputs, read: Inputs) -> Results:
        """Replay the backward pass; record it for the first of these gradients' layout."""
        layout = _layouts(grads)
        if layout not in self._backward:
            others = {"copied": self._forward.inputs, "read": _aliases(read), "saved": self._lent}
            self._backward[layout] = Recording(self._recorder, partial(compute, **others), grads)
        self._backward[layout](grads)
        return _copies(self._backward[layout].results)


class Pool:
    """The recordings of a process; any thread may use it.

    A call is recorded when it comes the second time. If there is no room, it replaces the least
    recently used recording, but only one that nobody has used since the first time: calls that
    take turns do not drive each other out.

    Attributes:
        limit: the most recordings of forward passes; 0 for none.
    """

    def __init__(self) -> None:
        self.limit = 0
        self._slots: list[Slot] = []  # the least recently used first
        self._seen: OrderedDict[Call, int] = OrderedDict()  # the time of the last call
        self._time, self._lock = 0, RLock()

    def resize(self, limit: int) -> None:
        """Change the limit; recordings beyond it are dropped, the least recently used first."""
        with self._lock:
            self.limit = limit
            del self._slots[: max(0, len(self._slots) - limit)]

    def forward(
        self,
        options: Hashable,
        copied: Inputs,
        read: Inputs,
        compute: Forward,
        device: torch.device,
    ) -> Results:
        """Return the results of a forward pass.

        Args:
            options: the arguments that are no tensors.
            copied: contiguous inputs that differ from call to call.
            read: contiguous inputs that stay in their place.
            compute: the computation, from `copied` and `read`. Of its results the caller may change
                the first `COPIED`.
            device: of the tensors, and the current one.
        """
        recorder = recorder_for(device)
        if recorder is not None:
            call = Call(options, _circumstances(device), _layouts(copied), _addresses(read))
            with self._lock:
                slot = self._slot(call, recorder, compute, copied, read)
                if slot is not None:
                    return slot.forward(copied)
        return compute(copied, read)

    def backward(
        self,
        grads: Inputs,
        copied: Inputs,
        read: Inputs,
        saved: Results,
        compute: Backward,
        device: torch.device,
    ) -> Results:
        """Return the results of the backward pass of a forward pass.

        Args:
            grads: the gradients of the forward pass's first results, contiguous.
            copied: the inputs of the forward pass.
            read: its further inputs.
            saved: its further results.
            compute: the computation, from these four.
            device: of the tensors, and the current one.
        """
        addresses = _addresses(saved)
        with self._lock:
            slot = next((each for each in self._slots if each.lends == addresses), None)
            if slot is not None and _can_replay(slot.call, read, device):
                try:
                    return slot.backward(compute, grads, read)
                except RuntimeError as error:
                    self._give_up(error)
        return compute(grads, copied, read, saved)

    def _slot(
        self, call: Call, recorder: Recorder, compute: Forward, copied: Inputs, read: Inputs
    ) -> Slot | None:
        """Return a free slot for a call, a new one if the call has come before; None otherwise."""
        self._time += 1
        before = self._seen.pop(call, None)
        self._seen[call] = self._time
        while len(self._seen) > 2 * self.limit:
            self._seen.popitem(last=False)
        slot = next((each for each in self._slots if each.call == call and each.is_free()), None)
        if slot is not None:
            self._slots.remove(slot)
        elif before is not None and self._make_room(before):
            try:
                slot = Slot(call, recorder, compute, copied, read)
            except RuntimeError as error:
                self._give_up(error)
        if slot is not None:
            slot.used = self._time
            self._slots.append(slot)
        return slot

    def _make_room(self, before: int) -> bool:
        """Drop, if there is no room, a free slot that has not been used since; say if there is."""
        if len(self._slots) < self.limit:
            return True
        old = next((each for each in self._slots if each.is_free() and each.used < before), None)
        if old is not None:
            self._slots.remove(old)
        return old is not None

    def _give_up(self, error: RuntimeError) -> None:
        """Stop recording, since what failed once would fail at every call."""
        first_line = str(error).partition("\n")[0]
        log.warning("sequences are no longer recorded: %s", first_line)
        self.resize(0)


POOL = Pool()


class set_recording:  # noqa: N801 (as torch.set_grad_enabled)
    """Switch the recording of sequences on a GPU on or off, for good or in a `with` statement.

    Off until measured: nobody has yet compared its speed and memory on a GPU, so it must be
    switched on. Then a tensorized layer records a call that comes the second time: with the same
    weights, shapes, dtypes, options and stream. Later calls replay its forward pass by one launch,
    and its backward pass by another. Nothing changes for the caller: outputs are the caller's own,
    and what cannot be replayed (programs of torch.compile, torch.export and torch.jit, the
    caller's own CUDA graphs, transforms of torch.func, other devices) is computed as before.

    Making a recording takes about as long as three calls and waits for the GPU; it keeps the
    memory of a forward and a backward pass, even if the layer is gone, until it is dropped. A layer
    takes one for each shape of its input, one more without gradients, and one for each further call
    before the backward pass.

    Args:
        limit: the most recordings of the process, such as 8; 0 for none. The least recently used
            ones are dropped, and their memory with them.

    Raises:
        ValueError: limit is no number of recordings.
    """

    def __init__(self, limit: int) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise ValueError(f"limit must be an integer of at least 0, got {limit!r}")
        self._before = POOL.limit
        POOL.resize(limit)

    def __enter__(self) -> None:
        """Keep the limit until the end of the context."""

    def __exit__(self, *_: object) -> None:
        """Restore the limit from before."""
        POOL.resize(self._before)


def may_record() -> bool:
    """Return True if recordings may serve this call; a program would keep the answer for good."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    return POOL.limit > 0


def _can_replay(call: Call, read: Inputs, device: torch.device) -> bool:
    """Return True if a backward pass finds the weights and circumstances of its forward pass."""
    same = call.read == _addresses(read) and call.circumstances == _circumstances(device)
    return same and recorder_for(device) is not None


def _circumstances(device: torch.device) -> Hashable:
    """Return the device, the stream and the settings that choose a matrix product's kernel."""
    matmul = torch.backends.cuda.matmul
    return (
        device,
        torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None,
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        getattr(matmul, "fp32_precision", None),  # which torch 2.6 has not
        matmul.allow_bf16_reduced_precision_reduction,
        matmul.allow_fp16_reduced_precision_reduction,
        torch.backends.cuda.preferred_blas_library(),
    )


def _layouts(tensors: Inputs) -> Hashable:
    return tuple(None if each is None else (each.shape, each.dtype) for each in tensors)


def _addresses(tensors: Inputs) -> Hashable:
    return _layouts(tensors), tuple(None if each is None else each.data_ptr() for each in tensors)


def _aliases(tensors: Inputs) -> Inputs:
    """Return tensors of the same memory, which stay there if the given ones are moved."""
    return tuple(None if each is None else each.detach() for each in tensors)


def _copies(tensors: Results) -> Results:
    copies = [torch.empty_like(each) for each in tensors]
    torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)
