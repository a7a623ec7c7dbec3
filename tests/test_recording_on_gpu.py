"""Whether recording may be on by default: `pytest -s` of this file on a GPU prints the numbers.

If it and test_recording.py pass there, `POOL.limit` may become 8.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from test_recording import assert_equal, gradients, inputs_on, layer_on, unrecorded
from tlstm.bench.cases import make_case
from tlstm.bench.competitors import make_layer, program
from tlstm.bench.cuda_graphs import compute
from tlstm.bench.memory import peak_memory
from tlstm.bench.timing import time_calls
from tlstm.ops.recording import POOL, set_recording
from tlstm.records.measurement import Competitor

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")
# Task, configuration, L, T, and microseconds per timestep forward and backward that are allowed
CASES = [
    ("mnist", "tlstm_2d", 5, 784, 13),
    ("mnist", "tlstm_2d", 5, 50, 15),
    ("mnist", "tlstm_3d_cn", 5, 784, 26),
    ("mnist", "tlstm_3d_cn", 5, 50, 29),
    ("memorization", "tlstm_3d_cn", 10, 50, 31),
    ("addition", "tlstm_2d", 10, 50, 25),
    ("wikipedia", "tlstm_2d", 4, 50, 68),
]
STEP = 25  # microseconds of a single timestep
FIRST_CALL = {50: 0.05, 784: 0.5}  # seconds that recording may take
MEMORY = 1.3  # times that of the same call without recording


@pytest.fixture(autouse=True)
def switched_on() -> Iterator[None]:
    with set_recording(8):
        yield


def seconds(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


@pytest.mark.parametrize(("task", "model", "depth", "timesteps", "allowed"), CASES)
def test_training_is_fast(
    task: str, model: str, depth: int, timesteps: int, allowed: float
) -> None:
    case = make_case("targets", task, model, depth, timesteps=timesteps)
    x = torch.randn(timesteps, case.batch_size, case.input_size, device=GPU)
    cotangent = torch.ones(timesteps, case.batch_size, case.channels, device=GPU).bfloat16()

    def training(implementation: str, x: Tensor) -> Callable[[], object]:
        competitor = Competitor.model_validate(
            {"implementation": implementation, "precision": "bfloat16", "cuda_graph": False}
        )
        return partial(compute, program(case, competitor, GPU), "training", x, cotangent)

    call, peer = training("triton", x), training("nn.LSTM", x.bfloat16())
    with set_recording(0):
        call()
        plain, eager, memory = seconds(call), time_calls(call, 20, GPU), peak_memory(call, GPU)
    theirs = time_calls(peer, 20, GPU)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    call()
    first = seconds(call) - plain
    recorded, kept = time_calls(call, 100, GPU), torch.cuda.memory_reserved() - before
    eager, recorded, theirs = (1e6 * each / timesteps for each in (eager, recorded, theirs))
    print(
        f"\n{case.name} T={timesteps}: eager {eager:.1f}, recorded {recorded:.1f} of {allowed}, "
        f"nn.LSTM {theirs:.1f} µs per timestep; first {1e3 * first:.0f} ms; "
        f"memory {kept / memory:.2f} times"
    )
    assert recorded <= allowed
    assert model != "tlstm_2d" or recorded < theirs
    assert first <= FIRST_CALL[timesteps]
    assert kept <= MEMORY * memory


def test_a_step_is_fast() -> None:
    layer = make_layer(make_case("step", "mnist", "tlstm_2d", 5), "triton", GPU)
    x, state = torch.randn(1, 1, device=GPU), layer.initial_state(1)
    with torch.no_grad():
        found = 1e6 * time_calls(lambda: layer.step(x, state), 300, GPU)
    print(f"\nsingle step: {found:.1f} of {STEP} µs")
    assert found <= STEP


def test_every_stream_has_recordings_of_its_own() -> None:
    layer = layer_on("cuda")
    batches = [inputs_on("cuda", seed=seed) for seed in range(3)]
    expected = [unrecorded(gradients, layer, each) for each in batches]
    streams = [torch.cuda.Stream() for _ in batches]
    found: list[list[list[Tensor]]] = [[] for _ in batches]
    torch.cuda.synchronize()
    for _ in range(10):
        for stream, batch, values in zip(streams, batches, found, strict=True):
            with torch.cuda.stream(stream):
                values.append(gradients(layer, batch))
    torch.cuda.synchronize()
    assert len(POOL._slots) == 3
    for values, each in zip(found, expected, strict=True):
        for value in values:
            assert_equal(value, each)


def test_a_capture_by_the_caller_holds_the_kernels_themselves() -> None:
    layer, static, other = layer_on("cuda"), inputs_on("cuda"), inputs_on("cuda", seed=5)

    def squares(inputs: Tensor) -> list[Tensor]:
        output, _ = layer(inputs)
        return [output, *torch.autograd.grad(output.square().sum(), list(layer.parameters()))]

    expected = unrecorded(squares, other)
    for _ in range(3):
        squares(static)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = squares(static)
    set_recording(0)
    static.copy_(other)
    graph.replay()
    assert_equal(found, expected)


def test_memory_comes_back() -> None:
    layer = layer_on("cuda")
    set_recording(0)
    unrecorded(gradients, layer, inputs_on("cuda", 300, 50))
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with set_recording(8):
        for length in range(280, 300):
            for _ in range(2):
                gradients(layer, inputs_on("cuda", length, 50))
        assert len(POOL._slots) == 8
        assert torch.cuda.memory_reserved() > before
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before
