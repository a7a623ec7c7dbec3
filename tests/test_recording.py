"""Sequences that are recorded and replayed compute the same as those that are not.

There is no CUDA graph on the CPU. The recorder that stands for it keeps its rules: recording leaves
no results, and a replay computes from the memory of the recording into the memory of the recording.
"""

import gc
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import variants
from oracle import Options
from test_fused import (  # noqa: F401 (run here with recordings)
    test_a_loss_may_use_some_of_what_is_returned,
    test_a_second_backward_pass_gives_the_same,
    test_a_stream_may_come_in_any_chunks,
    test_equals_the_cell_on_every_path,
    test_every_source_may_be_the_only_one_that_needs_a_gradient,
    test_without_gradients_the_values_are_the_same,
)
from test_operators import (  # noqa: F401
    exported,
    test_a_backward_pass_may_be_inside_autocast,
    test_a_gradients_gradient_is_refused,
    test_gradients_by_example,
    test_jacobians,
)
from tlstm.ops import recorder, recording
from tlstm.ops.recorder import Results
from tlstm.ops.recording import POOL, set_recording
from variants import as_tuple, generic_loss, make_layer

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
for_each_device = pytest.mark.parametrize("device", DEVICES)
LSTM = Options(3, 2, 3, normalization="channel")
RNN = Options(2, 3, 2, gated=False)


class Counter:
    """A recorder that counts: computations that were recorded, and replays of any of them."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0
        self.of_device: Callable[[Callable[[], Results]], Any] = record_on_cpu

    def record(self, compute: Callable[[], Results]) -> tuple[Results, Callable[[], object]]:
        self.recorded += 1
        results, replay = self.of_device(compute)

        def counted() -> None:
            self.replayed += 1
            replay()

        return results, counted


def record_on_cpu(compute: Callable[[], Results]) -> tuple[Results, Callable[[], object]]:
    results = compute()
    for result in results:
        result.fill_(float("nan"))

    def replay() -> None:
        for result, value in zip(results, compute(), strict=True):
            result.copy_(value)

    return results, replay


@pytest.fixture(autouse=True)
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    """Recordings are switched on, on the CPU too, and counted."""
    counter = Counter()

    def recorder_for(device: torch.device) -> Any:
        found = recorder.recorder_for(device)
        if found is not None:
            counter.of_device = found.record
        return counter if device.type == "cpu" else found and counter

    monkeypatch.setattr(recording, "recorder_for", recorder_for)
    with set_recording(8):
        yield counter
    assert not POOL._slots


def layer_on(device: str, options: Options = LSTM, **arguments: Any) -> Any:
    kernels = "triton" if device == "cuda" else "pytorch"
    return make_layer(options, implementation=kernels, **arguments).float().to(device)


def inputs_on(device: str, *sizes: int, seed: int = 11) -> Tensor:
    return (
        variants.random_tensor(*(sizes or (4, 2)), variants.INPUT_SIZE, seed=seed)
        .float()
        .to(device)
    )


def gradients(layer: Any, inputs: Tensor, **arguments: Any) -> list[Tensor]:
    """Values of a call, and the gradients of all weights."""
    output, last = layer(inputs, **arguments)
    values = [output, *as_tuple(last)]
    found = torch.autograd.grad(generic_loss(values), list(layer.parameters()))
    return [each.detach().clone() for each in (*values, *found)]


def unrecorded(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    with set_recording(0):
        return function(*arguments, **keywords)


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    """Bit by bit."""
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(one, other), number


# Everything at random


class Session:
    """A user's session, drawn at random: everything that it makes, in order.

    Layers of several options, two of which share their weights, are called in every form at a few
    shapes. Results are kept, changed in place, carried on as states, or used in a loss at once or
    later, alone or with others, once or twice. Weights are changed in their place, and moved.
    """

    FORMS: tuple[dict[str, Any], ...] = (
        {},
        {"stream": True},
        {"lengths": [1, 3]},
        {"lengths": [3, 2], "stream": True},
    )

    def __init__(self, seed: int, device: str) -> None:
        self.random = random.Random(seed)
        self.device = device
        self.layers = [layer_on(device, options) for options in (LSTM, RNN, LSTM, LSTM)]
        twin, original = self.layers[2], self.layers[0]
        for name, parameter in list(original.named_parameters()):
            setattr(twin, name, parameter)
        self.usual: tuple[int, int, int, dict[str, Any]] = (0, 3, 2, {})
        self.states: dict[tuple[int, int], Any] = {}
        self.kept: list[tuple[Tensor, ...]] = []
        self.losses: list[Tensor] = []
        self.made: list[Tensor] = []

    def run(self, events: int) -> list[Tensor]:
        actions = [self.call, self.call, self.call, self.step, self.learn, self.learn, self.reweigh]
        for _ in range(events):
            self.random.choice(actions)()
        return self.made + [each.detach() for values in self.kept for each in values]

    def call(self) -> None:
        if self.random.random() < 0.4:
            batch_size, form = self.random.choice([1, 2]), self.random.choice(self.FORMS)
            form = form if batch_size == 2 else {}
            self.usual = self.random.randrange(4), self.random.choice([3, 4]), batch_size, form
        number, time, batch_size, form = self.usual
        inputs = inputs_on(self.device, time, batch_size) * self.random.random()
        state = self.states.get((number, batch_size)) if self.random.random() < 0.5 else None
        context = self.random.choice(
            [torch.enable_grad, torch.enable_grad, torch.no_grad, torch.inference_mode]
        )
        with context():
            output, state = self.layers[number](inputs, state, **form)
            self.keep(number, output, state)
            if self.random.random() < 0.3:
                output.mul_(2)  # nobody else sees it

    def step(self) -> None:
        number = self.random.randrange(4)
        state = self.states.get((number, 2))
        narrow = torch.autocast(self.device, torch.bfloat16)  # a sequence of one on the CPU too
        with narrow, self.random.choice([torch.enable_grad, torch.no_grad])():
            self.keep(number, *self.layers[number].step(inputs_on(self.device, 2), state))

    def keep(self, number: int, output: Tensor, state: Any) -> None:
        values = (output, *as_tuple(state))
        self.made += [each.detach().clone() for each in values]
        if output.requires_grad:
            self.losses.append(generic_loss(values))
        if not output.is_inference():
            carried = variants.change_state(state, Tensor.detach)
            self.states[number, len(values[1])] = variants.change_state(carried, Tensor.clone)
        self.kept.append(values)

    def learn(self) -> None:
        """Take gradients of one or two losses, adding them up; some losses are never used."""
        chosen = self.random.sample(self.losses, min(len(self.losses), self.random.choice([1, 2])))
        if not chosen:
            return
        again = self.random.random() < 0.2
        torch.stack(chosen).sum().backward(retain_graph=again)
        if again:
            chosen[0].backward()
        self.losses = [loss for loss in self.losses if not any(loss is one for one in chosen)]
        parameters = [each for layer in self.layers for each in layer.parameters()]
        self.made += [each.grad.clone() for each in parameters if each.grad is not None]
        if self.random.random() < 0.4:
            self.losses.clear()  # their weights change
            with torch.no_grad():
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.sub_(0.01 * parameter.grad)
                        parameter.grad = None

    def reweigh(self) -> None:
        """Move the weights of one layer."""
        if self.random.random() < 0.3:
            self.losses.clear()
            for parameter in self.layers[self.random.randrange(4)].parameters():
                parameter.data = parameter.data.clone()


@for_each_device
@pytest.mark.parametrize("limit", [2, 8])
@pytest.mark.parametrize("seed", range(6))
def test_a_random_session_is_the_same(seed: int, limit: int, device: str, counter: Counter) -> None:
    expected = unrecorded(Session(seed, device).run, 100)
    assert counter.recorded == 0
    with set_recording(limit):
        found = Session(seed, device).run(100)
    assert counter.replayed > 5
    if device == "cpu":
        assert_equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# Each promise


@for_each_device
def test_a_call_is_recorded_when_it_comes_again(device: str, counter: Counter) -> None:
    layer = layer_on(device)
    expected = unrecorded(gradients, layer, inputs_on(device))
    for recorded, replayed in ((0, 0), (2, 2), (2, 4), (2, 6)):
        assert_equal(gradients(layer, inputs_on(device)), expected)
        assert (counter.recorded, counter.replayed) == (recorded, replayed)
    others = unrecorded(gradients, layer, inputs_on(device, seed=5))
    assert_equal(gradients(layer, inputs_on(device, seed=5)), others)
    assert counter.replayed == 8


@for_each_device
def test_a_step_is_replayed(device: str, counter: Counter) -> None:
    layer, state = layer_on(device), None
    steps = inputs_on(device, 6, 1)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        expected, _ = layer(steps, stream=True)
        for number, step in enumerate(steps):
            output, state = layer.step(step, state)
            torch.testing.assert_close(output, expected[number], rtol=1e-2, atol=1e-2)
            assert counter.replayed == number


@for_each_device
def test_what_lives_is_not_overwritten(device: str, counter: Counter) -> None:
    """More graphs than recordings: the further ones are computed as ever."""
    layer = layer_on(device)
    batches = [inputs_on(device, seed=seed) for seed in range(12)]
    expected = [unrecorded(gradients, layer, each) for each in batches]
    layer(batches[0])
    with set_recording(3):
        layer(batches[0])
        results = [layer(each) for each in batches]
        assert len(POOL._slots) == 3
        for (output, last), values in zip(results, expected, strict=True):
            parts = [output, *as_tuple(last)]
            found = torch.autograd.grad(generic_loss(parts), list(layer.parameters()))
            assert_equal([*parts, *found], values)


@for_each_device
def test_the_least_recently_used_is_dropped_with_its_memory(device: str, counter: Counter) -> None:
    layer = layer_on(device)
    gc.collect()
    with set_recording(2), torch.no_grad():
        for time in (3, 4, 5):
            for _ in range(3):
                layer(inputs_on(device, time, 2))
        kept = [slot.call.copied[0][0][0] for slot in POOL._slots]
        assert kept == [4 + layer.delay, 5 + layer.delay]
        memory = torch.multiprocessing.reductions.StorageWeakRef(POOL._slots[0]._storages[0])
        set_recording(1)
        assert memory.expired()
        assert len(POOL._slots) == 1
        set_recording(0)
        layer(inputs_on(device, 5, 2))
    assert (counter.recorded, counter.replayed) == (3, 6)


@for_each_device
def test_calls_that_take_turns_do_not_drive_each_other_out(device: str, counter: Counter) -> None:
    layer = layer_on(device)
    with set_recording(2), torch.no_grad():
        for _ in range(6):
            for time in (3, 4, 5):
                layer(inputs_on(device, time, 2))
    assert counter.recorded == 2
    assert counter.replayed == 2 * 5


@for_each_device
@pytest.mark.parametrize("backward", [False, True])
def test_what_cannot_be_recorded_is_computed(
    device: str,
    backward: bool,
    counter: Counter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = counter.record

    def out_of_memory(compute: Callable[[], Results]) -> Any:
        if backward and counter.recorded == 0:
            return record(compute)
        raise torch.OutOfMemoryError("no memory\nbacktrace")

    monkeypatch.setattr(counter, "record", out_of_memory)
    layer = layer_on(device)
    expected = unrecorded(gradients, layer, inputs_on(device))
    for _ in range(3):
        assert_equal(gradients(layer, inputs_on(device)), expected)
    assert caplog.messages == ["sequences are no longer recorded: no memory"]
    assert POOL.limit == 0


def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)


def products_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "highest" if torch.get_float32_matmul_precision() == "high" else "high"
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: other)


def in_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "recorder_for", lambda device: None)


@for_each_device
@pytest.mark.parametrize("change", [deterministic, products_in_tf32, in_a_capture])
@pytest.mark.parametrize("forward", [True, False])
def test_what_was_recorded_otherwise_is_not_replayed(
    forward: bool, change: Any, device: str, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_on(device)
    for _ in range(2):
        gradients(layer, inputs_on(device))
    replayed = counter.replayed
    if forward:
        change(monkeypatch)
    output, _ = layer(inputs_on(device))
    change(monkeypatch)
    output.sum().backward()
    assert counter.replayed - replayed == (0 if forward else 1)


def test_only_nvidia_gpus_that_do_not_capture_record(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorder.recorder_for(torch.device("cpu")) is None
    for version, capturing, records in (
        ("13.0", False, True),
        ("13.0", True, False),
        (None, False, False),
    ):
        monkeypatch.setattr(torch.version, "cuda", version)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda it=capturing: it)
        assert (recorder.recorder_for(torch.device("cuda")) is not None) == records


@for_each_device
def test_ddp_gets_the_same_gradients(device: str, counter: Counter, tmp_path: Path) -> None:
    layer, inputs = layer_on(device), inputs_on(device)
    expected = unrecorded(gradients, layer, inputs)[3:]
    backend = "nccl" if device == "cuda" else "gloo"
    store = (tmp_path / "store").as_uri()
    torch.distributed.init_process_group(backend, init_method=store, rank=0, world_size=1)
    try:
        model = DistributedDataParallel(layer)
        for number in range(1, 5):
            output, last = model(inputs)
            generic_loss([output, *as_tuple(last)]).backward()
            summed = [number * each for each in expected]
            torch.testing.assert_close([each.grad for each in layer.parameters()], summed)
    finally:
        torch.distributed.destroy_process_group()
    assert counter.replayed == 6


@for_each_device
def test_saved_tensors_may_go_elsewhere(device: str, counter: Counter) -> None:
    """Hooks that keep copies, and checkpoints that compute again."""
    layer, inputs = layer_on(device), inputs_on(device)
    expected = unrecorded(gradients, layer, inputs)
    weights = list(layer.parameters())
    for _ in range(4):
        with torch.autograd.graph.save_on_cpu():
            one = generic_loss([(first := layer(inputs))[0], *as_tuple(first[1])])
        output, last = checkpoint(layer, inputs, use_reentrant=False)
        two = generic_loss([output, *as_tuple(last)])
        for loss in (one, two):
            assert_equal([*expected[:3], *torch.autograd.grad(loss, weights)], expected)
    assert counter.replayed > 3


@for_each_device
def test_threads_may_share_a_layer(device: str, counter: Counter) -> None:
    layer = layer_on(device)
    batches = [inputs_on(device, seed=seed) for seed in range(4)]
    expected = [unrecorded(gradients, layer, each) for each in batches]
    found: dict[int, list[list[Tensor]]] = {}

    def work(number: int) -> None:
        found[number] = [gradients(layer, batches[number]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, values in enumerate(expected):
        assert len(found[number]) == 20
        for each in found[number]:
            assert_equal(each, values)
    assert counter.replayed > 40


@for_each_device
def test_programs_are_not_recorded(device: str, counter: Counter) -> None:
    layer, inputs = layer_on(device), inputs_on(device, 5, 3)
    state = layer.initial_state(3)
    torch._dynamo.reset()
    programs: list[Any] = [
        torch.compile(layer, backend="aot_eager", fullgraph=True),
        exported(layer, (inputs, state), strict=False),
        torch.jit.trace(layer, (inputs, state)),
    ]
    for program in programs:
        for _ in range(3):
            program(inputs, state)[0].sum().backward()
    torch._dynamo.reset()
    assert counter.recorded == 0


@pytest.mark.parametrize("limit", [-1, True, 1.5, None])
def test_a_limit_that_is_none(limit: Any) -> None:
    with pytest.raises(ValueError, match=f"limit must be an integer of at least 0, got {limit}"):
        set_recording(limit)
