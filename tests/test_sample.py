"""Text that a trained model writes: the likeliest by another way, and what is refused."""

import json
import math
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)

from commands import measure_quickly, refused, run_directory, tiny, train_here
from texts_for_tests import TINY, write_text
from tlstm import TensorizedLSTM, evaluate, export, sample
from tlstm.layers.serialization import read_about, read_head, read_layer
from tlstm.training.config import identify
from tlstm.training.trained_run import read_run

WEIGHTS = Path(__file__).parents[1] / "results" / "weights"
ENGLISH = (
    "The [[United States]] is a country in [[North America]]. It was founded in 1776, and its "
    "capital is [[Washington, D.C.]] The history of the country is the history of its people."
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small model of words, L = 3."""
    place = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        text = f"task.path={write_text(place, 4000)}"
        more = ["model.channels=16", "training.learning_rate=0.02", "training.max_samples=240"]
        train_here([*TINY, f"output_dir={place / 'runs'}", text, *more])
    return run_directory(place / "runs")


@pytest.fixture(scope="module")
def weights(run: Path) -> Path:
    """The file of that model's weights."""
    file = run.parent / "model.safetensors"
    assert export.main([str(run), str(file)]) == 0
    return file


def written(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert sample.main([*map(str, arguments), "--device", "cpu"]) == 0
    return capsys.readouterr().out.removesuffix("\n")


def test_the_likeliest_text_is_that_of_whole_sequences(
    run: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every character from the whole text before it, without a state."""
    trained = read_run(run)
    alphabet, network = trained.data.alphabet, trained.module.network
    assert alphabet is not None
    tokens = [alphabet.index(byte) for byte in b"the "]
    with torch.no_grad():
        for _ in range(12):
            tokens.append(int(network(torch.tensor([tokens]))[0, -1].argmax()))
    expected = bytes(alphabet[token] for token in tokens).decode()
    options = ("--prompt", "the ", "--characters", 12, "--temperature", 0)
    assert written(capsys, run, *options) == expected
    assert written(capsys, weights, *options) == expected


def test_the_seed_decides_the_text(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (weights, "--prompt", "a", "--characters", 40, "--temperature", 2)
    first, again, other = (written(capsys, *options, "--seed", seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 41


def test_draws_follow_the_chances() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0])
    drawn = [sample.draw(logits, 0.5, generator) for _ in range(4000)]
    shares = torch.bincount(torch.tensor(drawn), minlength=3) / len(drawn)
    expected = torch.tensor([1.0, math.exp(2), math.exp(4)])
    assert (shares - expected / expected.sum()).abs().max() < 0.02


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt", ""], "--prompt must have at least one character"),
        (["--prompt", "the Ä"], "--prompt has 'Ä', which the model has never seen"),
        (["--characters", "-1"], "--characters must be an integer of at least 0, got -1"),
        (["--temperature", "nan"], "--temperature must be 0 or above, got nan"),
        (["--temperature", "-1"], "--temperature must be 0 or above, got -1.0"),
        (["--device", "nowhere"], "--device must be cpu or cuda, got nowhere"),
        (["--device", "meta"], "--device must be cpu or cuda, got meta"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--characters", "10000000000"], "--characters must be at most 1,000,000,000"),
    ],
)
def test_refusals(
    options: list[str], said: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(weights), "--prompt", "the ", *options]
    assert said in refused(lambda: sample.main(command), capsys)


def test_a_model_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_quickly(monkeypatch)
    train_here(tiny(tmp_path, "model=slstm"))
    layer = tmp_path / "layer.safetensors"
    TensorizedLSTM(3, 4, 2).to_file(layer)
    for model, said in (
        (run_directory(tmp_path), "was trained on memorization, which is no text"),
        (layer, "holds a layer without the record of a finished run"),
        (tmp_path / "nothing", "is no directory of a run"),
    ):
        assert said in refused(lambda model=model: sample.main([str(model)]), capsys)


def test_weights_are_tested_as_their_run(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(weights)]) == 0
    assert "test bits_per_character" in capsys.readouterr().out


@pytest.mark.parametrize("file", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda file: file.stem)
def test_committed_weights_are_of_a_committed_record(file: Path) -> None:
    record = read_about(file)["record"]
    identifiers = (WEIGHTS / "records.jsonl").read_text(encoding="utf-8")
    assert f'"identifier":"{record["identifier"]}"' in identifiers
    assert record["test"] == read_run(file).record.test  # type: ignore[union-attr]
    assert file.stat().st_size <= 8 * 2**20


def test_the_committed_model_of_text_knows_english() -> None:
    file = WEIGHTS / "wikipedia_sample.safetensors"
    layer, head = TensorizedLSTM.from_file(file), read_head(file)
    alphabet = bytes(read_about(file)["alphabet"])
    tokens = torch.tensor([alphabet.index(byte) for byte in ENGLISH.encode()])
    with torch.no_grad():
        output, _ = layer(F.one_hot(tokens[:-1], layer.input_size).float())
        nats = F.cross_entropy(head(output)[20:], tokens[21:])
    assert nats / math.log(2) < 2.5  # each character of its training text has 5.07 by itself


def with_config(weights: Path, file: Path, key: str, value: object, identified: bool) -> Path:
    """A copy of weights whose configuration says something else, with its own identifier or not."""
    found, tensors = read_layer(weights), safetensors.torch.load_file(weights)
    with safetensors.safe_open(weights, framework="pt") as old:
        metadata = dict(old.metadata())
    record = found.about["record"]
    node = record["config"]
    *parents, last = key.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = value
    if identified:
        record["identifier"] = identify(record["config"])
    metadata["about"] = json.dumps(found.about | {"record": record})
    safetensors.torch.save_file(tensors, file, metadata)
    return file


@pytest.mark.parametrize(
    ("key", "value", "identified", "said"),
    [
        ("seed", 7, False, "is not what its configuration makes"),
        ("model.label", "${oc.env:HOME}", True, "is not what its configuration makes"),
        ("task.data_module", "os.system", True, "must be made of one SequenceDataModule of tlstm"),
        ("model.core._target_", "os.system", True, "must be made of one RecurrentLayer of tlstm"),
        ("model.channels", 17, True, "of another version of tlstm, or damaged"),
    ],
)
def test_weights_of_a_stranger_are_data(
    key: str, value: object, identified: bool, said: str, weights: Path, tmp_path: Path
) -> None:
    file = with_config(weights, tmp_path / "other.safetensors", key, value, identified)
    with pytest.raises(ValueError, match=said):
        read_run(file)
