"""Streams: every character counted once, the state carried on, and runs that go on as if whole."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from commands import (
    assert_same_weights,
    leaves,
    load,
    measure_quickly,
    record_of,
    result,
    run_directory,
    start_process,
    train_here,
)
from test_captured import HostGraph
from texts_for_tests import TINY, words, write_text
from tlstm.tasks.base import Batch, ConsecutiveSampler
from tlstm.tasks.text_streams import encode
from tlstm.tasks.wikipedia import WikipediaDataModule
from tlstm.training import callbacks
from tlstm.training import cuda_graph as captured
from tlstm.training import run as job
from tlstm.training.config import compose
from tlstm.training.metrics import IGNORE_INDEX
from tlstm.training.network import SequenceNetwork
from tlstm.training.run import make_data, make_module
from tlstm.training.stream_module import StreamModule, Streams

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
MODELS = ["tlstm_2d", "tlstm_2d_no_feedback", "tlstm_3d_cn", "trnn_2d", "slstm", "srnn"]
EACH_KIND = ["tlstm_3d_cn", "slstm"]


class Words(WikipediaDataModule):
    """Streams through words that are in no file."""

    def __init__(self, length: int, **options: int) -> None:
        super().__init__("text_file", **options)
        self.bytes = words(length)
        self.text = encode(self.bytes)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path)


def tiny(text: Path, output_dir: Path, *more: str) -> list[str]:
    return [*TINY, f"task.path={text}", f"output_dir={output_dir}", *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The output directory of a model's uninterrupted run, trained once for all tests."""

    @cache
    def trained(model: str) -> Path:
        place = tmp_path_factory.mktemp(model)
        train_here(tiny(write_text(place), place / "runs", f"model={model}"))
        return place / "runs"

    return trained


def make_network(model: str, symbols: int = 6, depth: int = 3) -> SequenceNetwork:
    """A network in float64 with weights large enough that everything matters."""
    overrides = [f"model={model}", "model.channels=4", f"model.depth={depth}"]
    config = compose(["scale=smoke", *overrides]).config
    torch.manual_seed(1)
    core = job.instantiate(config.model.core, input_size=symbols)
    network = SequenceNetwork(core, symbols).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return network


def on_device(data: Words, rank: int, devices: int) -> Words:
    data.trainer = Mock(global_rank=rank, world_size=devices)
    return data


def answered(loader: Any) -> list[list[tuple[int, int]]]:
    """(input, target) of every answered character, a list for every stream."""
    streams: list[list[tuple[int, int]]] = []
    for batch in loader:
        streams = streams or [[] for _ in batch.inputs]
        for stream, inputs, targets, mask in zip(streams, *batch, strict=True):
            pairs = zip(inputs[mask].tolist(), targets[mask].tolist(), strict=True)
            stream.extend(pairs)
    return streams


# The characters


def pairs_of(data: Words, part: range) -> list[tuple[int, int]]:
    """The inputs and targets of a part of the text, from its bytes alone."""
    symbol = {value: n for n, value in enumerate(sorted(set(data.bytes)))}
    before = [0] + [symbol[value] for value in data.bytes]
    return [(before[place], symbol[data.bytes[place]]) for place in part]


@settings(max_examples=40)
@given(
    length=st.integers(800, 1100),
    streams=st.sampled_from([1, 2, 4]),
    timesteps=st.integers(1, 5),
    context=st.integers(0, 30),
    devices=st.sampled_from([1, 2]),
)
def test_every_held_out_character_is_answered_once(
    length: int, streams: int, timesteps: int, context: int, devices: int
) -> None:
    """By one device, after the character before it; whether the lengths divide or not."""
    streams *= devices
    data = Words(
        length,
        batch_size=2,
        timesteps=timesteps,
        samples_per_epoch=2,
        evaluation_streams=streams,
        context=context,
    )
    training, validation, test = data.parts
    assert [*training, *validation, *test] == list(range(length))
    assert len(validation) == len(test) == length // 20
    loaders = [on_device(data, rank, devices).val_dataloader() for rank in range(devices)]
    of_devices = [answered(loader) for loader in loaders]
    found = chain.from_iterable(chain.from_iterable(zip(*of_devices, strict=True)))
    assert list(found) == pairs_of(data, validation)
    assert list(chain.from_iterable(answered(data.test_dataloader()))) == pairs_of(data, test)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("at_a_time", [1, 3])
def test_training_streams_go_on_from_batch_to_batch_and_from_epoch_to_epoch(
    devices: int, at_a_time: int
) -> None:
    data = Words(
        430, batch_size=4, timesteps=5, samples_per_epoch=36, evaluation_streams=2, context=0
    )
    data.batches_at_a_time = at_a_time
    assert data.samples_per_pass == 4 * (388 // 4 // 5)  # 97 characters each, of which 95
    read: list[list[list[int]]] = [[] for _ in range(4)]
    for rank in range(devices):
        loader = on_device(data, rank, devices).train_dataloader()
        assert isinstance(loader.sampler, ConsecutiveSampler)
        for epoch in range(3):
            loader.sampler.set_epoch(epoch)
            for batch in loader:
                for row, (inputs, targets) in enumerate(
                    zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)
                ):
                    assert batch.loss_mask.all()
                    assert inputs[1:] == targets[:-1]
                    own = 4 // devices
                    read[row % own * devices + rank].append(targets)
    symbols = [target for _, target in pairs_of(data, range(430))]
    for stream, chunks in enumerate(read):
        assert len(chunks) == 27
        beginning = symbols[97 * stream : 97 * stream + 95]
        expected = (beginning + beginning)[: 27 * 5]  # the second pass starts again
        assert list(chain.from_iterable(chunks)) == expected


def test_the_text_is_written_for_people() -> None:
    data = Words(
        400, batch_size=2, timesteps=5, samples_per_epoch=2, evaluation_streams=1, context=0
    )
    sample = data.test_set[1]
    assert data.render(sample.targets) == data.bytes[385:390].decode()


def test_a_text_has_a_token_for_each_byte_that_occurs() -> None:
    text = encode(b"banana")
    assert text.alphabet == b"abn"
    assert text.tokens.tolist() == [0, 1, 0, 2, 0, 2, 0]


# The state


def odds(network: SequenceNetwork, tokens: Tensor, targets: Tensor) -> Tensor:
    """Log-likelihoods [B, T], by single timesteps of the layer."""
    core, state, outputs = network.core, None, []
    tokens = F.pad(tokens, (0, core.delay))  # what follows the text changes nothing
    for column in tokens.T:
        output, state = core.step(F.one_hot(column, core.input_size).double(), state)
        outputs.append(network.head(output))
    logits = torch.stack(outputs[core.delay :], 1).log_softmax(-1)
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("lengths", [[11], [4, 4, 3], [1] * 11, [2, 1, 7, 1]])
def test_chunks_are_the_whole(model: str, lengths: list[int]) -> None:
    """Whatever their lengths, with every character answered once, the last ones too."""
    network = make_network(model)
    torch.manual_seed(2)
    tokens, targets = torch.randint(6, (2, 3, 11))
    streams, found = Streams(network, 3), []
    chunks = zip(tokens.split(lengths, 1), targets.split(lengths, 1), strict=True)
    with torch.no_grad():
        read = [streams.read(*chunk) for chunk in chunks]
        if network.core.delay:
            read.append(streams.flush())
    logits, due = (torch.cat(parts, 1) for parts in zip(*read, strict=True))
    assert (due[:, : network.core.delay] == IGNORE_INDEX).all()
    logits, due = logits[:, network.core.delay :], due[:, network.core.delay :]
    assert due.tolist() == targets.tolist()
    found = logits.log_softmax(-1).gather(-1, due.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, odds(network, tokens, targets), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("model", ["tlstm_2d", "slstm"])
def test_a_stream_that_is_reset_has_forgotten_everything(model: str) -> None:
    network = make_network(model)
    tokens, targets = torch.randint(6, (2, 3, 4))
    streams, fresh = Streams(network, 3), Streams(network, 3)
    streams.read(tokens, targets)
    streams.reset()
    for found, expected in zip(
        streams.read(tokens, targets), fresh.read(tokens, targets), strict=True
    ):
        assert torch.equal(found, expected)


def test_gradients_stop_at_the_beginning_of_a_chunk(tmp_path: Path) -> None:
    """And come from every output of the chunk, also for characters of the one before."""
    network = make_network("tlstm_2d")
    tokens, targets = torch.randint(6, (2, 3, 10))
    streams = Streams(network, 3)
    streams.read(tokens[:, :5], targets[:, :5])
    logits, due = streams.read(tokens[:, 5:], targets[:, 5:])
    F.cross_entropy(logits.flatten(0, 1), due.flatten()).backward()
    found = [parameter.grad for parameter in network.parameters()]

    encoded = F.one_hot(tokens, 6).double().transpose(0, 1)
    _, state = network.core(encoded[:5], stream=True)
    state = tuple(part.detach() for part in state)
    output, _ = network.core(encoded[5:], state, stream=True)
    logits = network.head(output).transpose(0, 1)
    loss = F.cross_entropy(logits.flatten(0, 1), targets[:, 3:8].flatten())
    expected = torch.autograd.grad(loss, list(network.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


# Runs


def straight(text: Path, overrides: Sequence[str]) -> dict[str, Tensor]:
    """The weights after a training written down here, with neither Lightning nor streams."""
    config = compose(list(overrides)).config
    torch.manual_seed(config.seed)
    job.set_up_torch(config)
    module = make_module(config, make_data(config))
    network, delay = module.network, module.network.core.delay
    symbols = np.unique(np.frombuffer(text.read_bytes(), np.uint8), return_inverse=True)[1]
    streams = symbols[:360].reshape(4, 90)
    before = np.concatenate([[0], symbols])[:360].reshape(4, 90)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.training.learning_rate)
    for step in range(24):
        first = step % 18 * 5
        if first == 0:
            state, waiting = None, np.full((4, delay), IGNORE_INDEX)
        encoded = F.one_hot(torch.tensor(before[:, first : first + 5]), symbols.max() + 1).float()
        output, state = network.core(encoded.transpose(0, 1), state, stream=True)
        state = tuple(part.detach() for part in state)
        waiting = np.concatenate([waiting, streams[:, first : first + 5]], 1)
        due, waiting = waiting[:, :5], waiting[:, 5:]
        logits = network.head(output).transpose(0, 1)
        loss = F.cross_entropy(logits.flatten(0, 1), torch.tensor(due).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("model", ["tlstm_2d", "slstm"])
def test_training_is_what_is_written_down_here(
    model: str, text: Path, whole: Callable[[str], Path]
) -> None:
    weights = straight(text, tiny(text, Path("runs"), f"model={model}"))
    found = load(run_directory(whole(model)), "last")["state_dict"]
    for name, expected in weights.items():
        torch.testing.assert_close(found[f"network.{name}"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", EACH_KIND)
def test_bits_per_character_are_of_every_character(model: str, text: Path, tmp_path: Path) -> None:
    """By single timesteps over the streams of the test split, whose lengths do not divide."""
    text.write_bytes(words(470))  # 23 to test: streams of 11 and 12 and chunks of 5
    record = train_here(tiny(text, tmp_path / "runs", f"model={model}"))
    config = compose(record.overrides).config
    module = make_module(config, make_data(config))
    best = load(run_directory(tmp_path / "runs"), "best")
    module.load_state_dict(best["state_dict"])
    network = module.network.double()
    symbols = np.unique(np.frombuffer(text.read_bytes(), np.uint8), return_inverse=True)[1]
    losses = []
    for first, last in ((447, 458), (458, 470)):
        before = torch.tensor(symbols[first - 4 : last - 1])[None]  # three more as context
        targets = torch.tensor(symbols[first - 3 : last])[None]
        with torch.no_grad():
            losses.append(-odds(network, before, targets)[0, 3:])
    expected = torch.cat(losses).mean().item()
    assert len(torch.cat(losses)) == 23
    assert record.test["loss"] == pytest.approx(expected, rel=1e-5)
    assert record.test["bits_per_character"] == pytest.approx(expected / np.log(2), rel=1e-5)


def test_the_best_is_the_lowest_loss(text: Path, tmp_path: Path) -> None:
    fast = "training.learning_rate=0.3"  # so much that it gets worse again
    record = train_here(tiny(text, tmp_path, "model=slstm", fast, "training.max_samples=480"))
    lowest = min(record.curve, key=lambda point: point.loss)
    assert lowest is not record.curve[-1]
    assert (record.best["loss"], record.best["samples"]) == (lowest.loss, lowest.samples)
    for metrics in (record.best, record.last, record.test):
        assert metrics["bits_per_character"] == pytest.approx(metrics["loss"] / np.log(2))
    assert "lowest validation loss" in record.selected_by
    best = load(run_directory(tmp_path), "best")
    assert best["global_step"] * 4 == lowest.samples


def test_validation_changes_nothing(
    text: Path, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    """However often it comes."""
    train_here(tiny(text, tmp_path / "once", "training.samples_per_epoch=96"))
    often, once = (
        load(run_directory(place), "last") for place in (whole("tlstm_2d"), tmp_path / "once")
    )
    for part in ("state_dict", "streams"):
        found, expected = dict(leaves(often[part])), dict(leaves(once[part]))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("model", "step"), [("tlstm_2d", 8), ("slstm", 20)])
def test_an_interrupted_run_ends_the_same(
    model: str,
    step: int,
    text: Path,
    whole: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a pass or just after one, bit by bit: weights, moments and streams."""
    overrides = tiny(text, tmp_path, f"model={model}")
    expected = whole(model)
    learn, count = StreamModule.learn, 0

    def failing(self: StreamModule, batch: Batch) -> Tensor:
        nonlocal count
        count += 1
        if count == step:
            raise KeyError
        return learn(self, batch)

    monkeypatch.setattr(StreamModule, "learn", failing)
    with pytest.raises(KeyError):
        train_here(overrides)
    train_here(overrides)
    directories = [run_directory(place) for place in (tmp_path, expected)]
    assert_same_weights(*directories)
    streams = [load(directory, "last")["streams"] for directory in directories]
    assert all(torch.equal(*parts) for parts in zip(*streams, strict=True))
    assert any(part.any() for part in streams[0])
    assert result(record_of(tmp_path)) | {"config": None} == result(record_of(expected)) | {
        "config": None
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("model", EACH_KIND)
def test_captured_training_is_the_same(
    model: str, device: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state lives where a recording reads and writes it, and starts again between replays."""
    if device == "cpu":
        monkeypatch.setattr(captured, "CudaGraph", HostGraph)
        monkeypatch.setattr(callbacks, "CudaGraph", HostGraph)
        monkeypatch.setattr(job, "cuda_graph_obstacle", lambda *_: None)
    common = [f"model={model}", f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"]
    ways = {
        "captured": ["trainer.cuda_graph=true", "trainer.steps_per_launch=4"],
        "plain": ["trainer.cuda_graph=false"],
    }
    found, expected = (
        train_here(tiny(text, tmp_path / name, *common, *way)) for name, way in ways.items()
    )
    tolerance = 0 if device == "cpu" else 1e-4
    losses = [point.loss for point in expected.curve]
    assert [point.loss for point in found.curve] == pytest.approx(losses, rel=tolerance, abs=0)


@pytest.mark.slow
def test_two_devices_carry_the_streams_of_one(
    text: Path, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    """Each its own, and the checkpoint those of both."""
    places = tmp_path / "runs", whole("tlstm_2d")
    process = start_process(tiny(text, places[0], "trainer.devices=2"))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    records = [record_of(place) for place in places]
    curves = [[point.loss for point in record.curve] for record in records]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert records[0].test["loss"] == pytest.approx(records[1].test["loss"], rel=1e-4)
    two, one = (load(run_directory(place), "last")["streams"] for place in places)
    for found, expected in zip(two, one, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_devices_share_the_streams_evenly() -> None:
    data = Words(
        400, batch_size=4, timesteps=5, samples_per_epoch=4, evaluation_streams=3, context=0
    )
    with pytest.raises(ValueError, match=r"evaluation_streams must be a multiple .* \(2\), got 3"):
        on_device(data, 0, 2).val_dataloader()
