"""MNIST and the digits that stand in for it: what is read, in which order, and what is refused."""

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import (
    assert_same_weights,
    forbid_network,
    load,
    measure_quickly,
    record_of,
    refused,
    result,
    run_directory,
    train_here,
)
from test_captured import HostGraph
from tlstm.layers.stacked import StackedLSTM
from tlstm.records.table import describe_task
from tlstm.tasks import download, mnist
from tlstm.tasks.base import Batch
from tlstm.tasks.mnist import (
    FILES,
    DigitsDataModule,
    MNISTDataModule,
    fingerprint,
    permutation,
    pixel_order,
)
from tlstm.train import run_command
from tlstm.training import callbacks
from tlstm.training import cuda_graph as captured
from tlstm.training import run as job
from tlstm.training.config import CONFIGURATIONS, compose, flat
from tlstm.training.module import SequenceModule
from tlstm.training.network import SequenceNetwork
from tlstm.training.run import make_data, make_module

MODELS = sorted(
    file.stem
    for file in (CONFIGURATIONS / "model").glob("*.yaml")
    if "comparators" not in file.read_text("utf-8")
)
NUMBERS = (24, 7)  # of images in the training and in the test files written here

# Three epochs of two steps on the digits
TINY = (
    "scale=smoke",
    "task=digits",
    "model=tlstm_2d",
    "model.channels=4",
    "model.depth=2",
    "training.max_samples=60",
    "training.samples_per_epoch=20",
    "training.batch_size=10",
    "task.validation_samples=20",
    "task.test_samples=20",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "logger=csv",
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs measure their runtime in next to no time, and no test asks a server."""
    measure_quickly(monkeypatch)
    forbid_network(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of a tiny run on the digits."""
    output_dir = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        train_here(tiny(output_dir))
    return output_dir


def images_file(images: np.ndarray) -> bytes:
    return struct.pack(">4i", 2051, *images.shape) + images.astype(np.uint8).tobytes()


def labels_file(labels: np.ndarray) -> bytes:
    return struct.pack(">2i", 2049, len(labels)) + labels.astype(np.uint8).tobytes()


def contents() -> dict[str, bytes]:
    """Small files of MNIST's format, each with its name."""
    random = np.random.default_rng(0)
    parts: list[bytes] = []
    for number in NUMBERS:
        parts.append(images_file(random.integers(0, 256, (number, 28, 28))))
        parts.append(labels_file(random.permutation(np.arange(number) % 10)))
    return dict(zip(FILES, parts, strict=True))


def write(data_dir: Path, packed: bool = False, **changed: bytes) -> Path:
    """Write the files below a directory, some of them with another content."""
    raw = data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in (contents() | changed).items():
        if packed:
            (raw / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (raw / name).write_bytes(content)
    return data_dir


def other_data(data_dir: Path) -> list[str]:
    """Settings that train on the files written here, under a name of their own."""
    return [f"task.data_dir={data_dir}", "task.sha256=null", "task.name=tiny_mnist"]


def read_by_struct(images: bytes, labels: bytes) -> list[tuple[list[float], int]]:
    """Pixels from 0 to 1 and labels of two files, number by number."""
    number, rows, columns = struct.unpack_from(">3i", images, 4)
    size = rows * columns
    return [
        (
            [value / 255 for value in struct.unpack_from(f">{size}B", images, 16 + i * size)],
            struct.unpack_from(">B", labels, 8 + i)[0],
        )
        for i in range(number)
    ]


def pixels(sample: Batch) -> list[float]:
    return sample.inputs.squeeze(-1).tolist()


def tiny(output_dir: Path, *more: str) -> list[str]:
    return [*TINY, f"output_dir={output_dir}", *more]


# What is read


def in_canonical_order(
    samples: list[tuple[list[float], int]],
) -> list[tuple[list[float], int]]:
    """Images of each class by their SHA-256, where that class has its places; the slow way."""

    def digest(values: list[float]) -> bytes:
        return hashlib.sha256(bytes(round(255 * value) for value in values)).digest()

    waiting = {
        label: sorted((values for values, its in samples if its == label), key=digest)
        for _, label in samples
    }
    return [(waiting[label].pop(0), label) for _, label in samples]


@pytest.mark.parametrize("packed", [False, True])
def test_the_files_are_read_as_they_are(packed: bool, tmp_path: Path) -> None:
    """The last sixth of the training images, in their canonical order, validates."""
    data = MNISTDataModule(data_dir=write(tmp_path, packed), samples_per_epoch=50)
    files = contents()
    learnt = in_canonical_order(read_by_struct(files[FILES[0]], files[FILES[1]]))
    tested = read_by_struct(files[FILES[2]], files[FILES[3]])
    splits = {"training": learnt[:20], "validation": learnt[20:], "test": tested}
    assert (data.validation_samples, data.test_samples) == (4, 7)
    for name, expected in splits.items():
        dataset = mnist.ImageDataset(getattr(data.splits, name))
        assert len(dataset) == len(expected)
        for i, (values, label) in enumerate(expected):
            sample = dataset[i]
            assert pixels(sample) == pytest.approx(values, abs=1e-7)
            assert sample.targets[sample.loss_mask].tolist() == [label]


def test_the_label_is_the_target_of_the_last_pixel(tmp_path: Path) -> None:
    data = MNISTDataModule(data_dir=write(tmp_path), batch_size=5, samples_per_epoch=50)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        assert batch.inputs.shape == (*batch.targets.shape, 1)
        assert batch.inputs.dtype == torch.float32
        assert batch.targets.dtype == torch.int64
        assert batch.targets.shape[1] == data.timesteps == 784
        assert 0 <= batch.inputs.min() < 0.01
        assert 0.99 < batch.inputs.max() <= 1
        assert batch.loss_mask.sum(1).tolist() == [1] * len(batch.loss_mask)
        assert batch.loss_mask[:, -1].all()


def test_the_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = DigitsDataModule(samples_per_epoch=50)
    assert [len(part.labels) for part in data.splits] == [1250, 250, 297]
    first = {"training": 0, "validation": 1250, "test": 1500}
    for name, start in first.items():
        sample = mnist.ImageDataset(getattr(data.splits, name))[3]
        assert pixels(sample) == (bunch.images[start + 3].flatten() / 16).tolist()
        assert sample.targets[-1] == bunch.target[start + 3]
    assert data.timesteps == 64
    assert max(max(pixels(sample)) for sample in data.validation_set) == 1


def test_held_out_sets_can_be_shorter() -> None:
    data = DigitsDataModule(validation_samples=20, test_samples=30, samples_per_epoch=50)
    whole = DigitsDataModule(samples_per_epoch=50)
    assert [len(part.labels) for part in data.splits] == [1250, 20, 30]
    assert pixels(data.test_set[29]) == pixels(whole.test_set[29])


# In which order


def test_the_permutation_is_that_of_the_full_capacity_urnn() -> None:
    """Its first and last entries, as that repository's code gives them."""
    data = DigitsDataModule(permuted=True, samples_per_epoch=50)
    order = pixel_order(784, data.permutation_seed).tolist()
    assert order[:8] == [319, 576, 323, 107, 355, 716, 197, 20]
    assert order[-3:] == [102, 39, 346]
    assert sorted(order) == list(range(784))
    assert compose(["scale=paper", "task=permuted_mnist"]).config.task.permutation_seed == 92916


def test_the_order_of_training_samples_is_the_same_everywhere() -> None:
    """Its entries as they were when it was chosen."""
    assert permutation(10, 3, 0).tolist() == [6, 1, 8, 5, 2, 7, 9, 4, 3, 0]


def test_all_images_are_permuted_alike() -> None:
    """By the permutation's own seed, whatever the run's."""
    plain = DigitsDataModule(samples_per_epoch=50)
    order = pixel_order(64, 5)
    for seed in (0, 1):
        data = DigitsDataModule(permuted=True, permutation_seed=5, seed=seed, samples_per_epoch=50)
        for found, expected in zip(data.splits, plain.splits, strict=True):
            assert np.array_equal(found.pixels, expected.pixels.numpy()[:, order])
            assert torch.equal(found.labels, expected.labels)


def test_every_pass_reads_every_image_once_in_another_order() -> None:
    labels = torch.arange(1250, dtype=torch.long)
    numbered = mnist.Images(torch.zeros(1250, 1, dtype=torch.uint8), labels, 1)
    dataset = mnist.ShuffledImages(numbered, seed=1, samples_per_epoch=50)
    read = torch.stack([dataset[i].targets[-1] for i in range(2500)]).view(2, 1250)
    for turn in read:
        assert torch.equal(turn.sort().values, labels)
    assert not torch.equal(*read)
    assert not torch.equal(read[0], labels)
    another = mnist.ShuffledImages(numbered, seed=2, samples_per_epoch=50)
    assert [another[i].targets.item() for i in range(9)] != read[0, :9].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_the_last_one_ended(workers: int) -> None:
    """Past the end of the images too, and whoever reads them."""
    data = DigitsDataModule(samples_per_epoch=1000, num_workers=workers, seed=3)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    labels = torch.cat([batch.targets[:, -1] for batch in loader]).tolist()
    assert labels == [data.training_set[i].targets[-1].item() for i in range(1000, 2000)]


# Which data


@pytest.mark.parametrize(
    ("task", "stand_in"), [("mnist", "digits"), ("permuted_mnist", "permuted_digits")]
)
def test_mnist_is_mnist_and_the_digits_are_a_task(
    task: str, stand_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Composed without files, and without asking for a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "reachable", lambda _: pytest.fail("a server was asked"))
    real, digits = (compose(["scale=smoke", f"task={name}"]) for name in (task, stand_in))
    modules = [run.config.task.data_module.rpartition(".")[2] for run in (real, digits)]
    assert modules == ["MNISTDataModule", "DigitsDataModule"]
    assert real.directory.name.startswith(f"{task}-")
    assert digits.directory.name.startswith(f"{stand_in}-")
    assert real.identifier != digits.identifier
    assert compose(digits.overrides).config == digits.config


def test_where_the_files_are_decides_nothing(tmp_path: Path) -> None:
    places = [write(tmp_path / name) for name in ("here", "there")]
    runs = [compose(["scale=smoke", "task=mnist", f"task.data_dir={place}"]) for place in places]
    assert runs[0].identifier == runs[1].identifier
    modules = [make_module(run.config, make_data(run.config)) for run in runs]
    assert modules[0].description == modules[1].description


def test_copies_with_another_order_within_classes_are_the_same_data(tmp_path: Path) -> None:
    """The images of class 3 the other way round: same images everywhere, same fingerprint."""
    files = contents()
    images = np.frombuffer(files[FILES[0]], np.uint8, offset=16).reshape(-1, 28, 28).copy()
    labels = np.frombuffer(files[FILES[1]], np.uint8, offset=8)
    images[labels == 3] = images[labels == 3][::-1]
    places = [
        write(tmp_path / "one"),
        write(tmp_path / "other", **{FILES[0]: images_file(images)}),
    ]
    one, other = (MNISTDataModule(place).read() for place in places)
    assert torch.equal(one[0].pixels, other[0].pixels)
    assert fingerprint(*one) == fingerprint(*other)
    changed = (one[0], one[1]._replace(labels=one[1].labels.flip(0)))
    assert fingerprint(*changed) != fingerprint(*one)


def test_other_data_are_refused_under_mnists_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is read to know a run; that the files are others shows when they are read."""
    data_dir = write(tmp_path / "data")
    own = fingerprint(*MNISTDataModule(data_dir).read())
    places = ["task=mnist", f"task.data_dir={data_dir}"]
    line = refused(lambda: run_command(tiny(tmp_path / "runs", *places)), capsys)
    assert f"{data_dir} holds other images" in line
    assert f"task.name=my_images task.sha256={own}" in line
    undeclared = tiny(tmp_path / "runs", *places, f"task.sha256={own}")
    line = refused(lambda: run_command(undeclared), capsys)
    assert f"task.sha256={own} is not that of mnist" in line
    assert not (tmp_path / "runs").exists()
    ours = [*places, f"task.sha256={own}", "task.name=my_images", "training.max_samples=20"]
    assert train_here(tiny(tmp_path / "runs", *ours)).task == "my_images"


def test_the_data_are_part_of_what_a_run_is_known_by() -> None:
    settings = ["scale=paper", "task=mnist"]
    paper = compose(settings)
    other = compose([*settings, "task.sha256=null", "task.name=mnist_again"])
    assert paper.identifier != other.identifier
    assert compose(["scale=smoke", "task=digits"]).config.task.sha256 is None


# What is refused


def test_a_wrong_path_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = tmp_path / "nowhere"
    line = refused(
        lambda: run_command(tiny(tmp_path, "task=mnist", f"task.data_dir={data_dir}")), capsys
    )
    assert f"{data_dir}/MNIST/raw/{FILES[0]}.gz is missing" in line
    assert "no network" in line
    assert "task=digits" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("damage", ["truncated", "longer", "empty", "text", "another", "sizes"])
def test_damaged_files_are_refused(damage: str, name: str, tmp_path: Path) -> None:
    content = contents()[name]
    damaged = {
        "truncated": content[:-3],
        "longer": content + b"abc",
        "empty": b"",
        "text": b"<html>not found</html>",
        "another": contents()[FILES[1] if "images" in name else FILES[0]],
        "sizes": content[:4] + b"\xff" * 4 + content[8:],
    }[damage]
    data = MNISTDataModule(data_dir=write(tmp_path, **{name: damaged}))
    with pytest.raises(ValueError, match=rf"raw/{name} is damaged or no file of MNIST"):
        data.prepare_data()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (FILES[0], images_file(np.zeros((24, 8, 8))), "28×28 pixels, got [8, 8]"),
        (FILES[0], images_file(np.zeros((23, 28, 28))), "got 23 and 24"),
        (FILES[1], labels_file(np.full(24, 10)), "labels from 0 to 9"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    data = MNISTDataModule(data_dir=write(tmp_path, **{name: content}), samples_per_epoch=50)
    with pytest.raises(ValueError, match=r".") as caught:
        data.prepare_data()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"permuted": 1}, "permuted must be True or False"),
        ({"permutation_seed": -1}, "permutation_seed must be an integer of at least 0"),
        ({"permutation_seed": 2**32}, r"permutation_seed must be below 2\*\*32"),
        ({"validation_samples": 0}, "validation_samples must be an integer of at least 1"),
        ({"test_samples": 0}, "test_samples must be an integer of at least 1"),
        ({"samples_per_epoch": 51}, "samples_per_epoch must be a multiple of batch_size=50"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MNISTDataModule(**arguments)


@pytest.mark.parametrize(
    "inputs", [torch.zeros(2, 5), torch.zeros(2, 5, 2), torch.zeros(2, 5, 1, dtype=torch.long)]
)
def test_features_of_another_form_are_refused(inputs: torch.Tensor) -> None:
    network = SequenceNetwork(StackedLSTM(1, 4, 1), 10, is_discrete=False)
    assert network(torch.zeros(2, 5, 1)).shape == (2, 5, 10)
    with pytest.raises(ValueError, match=r"inputs must be floating point .* \[B, T, 1\], got"):
        network(inputs)


# Training


@pytest.mark.parametrize("model", MODELS)
def test_every_model_answers(model: str) -> None:
    overrides = ["task=digits", f"model={model}", "model.depth=2", "model.channels=4"]
    config = compose(["scale=smoke", *overrides]).config
    data = make_data(config)
    module = make_module(config, data)
    batch = next(iter(data.test_dataloader()))
    batch = Batch(*(part[:2] for part in batch))
    assert module.network(batch.inputs).shape == (2, 64, 10)
    assert 0.5 < module.loss(batch) < 10


def test_the_loss_is_of_the_last_answer_alone() -> None:
    config = compose([*TINY]).config
    data = make_data(config)
    module = make_module(config, data)
    batch = next(iter(data.train_dataloader()))
    with torch.no_grad():
        odds = module.network(batch.inputs)[:, -1].log_softmax(-1)
        expected = -odds[torch.arange(10), batch.targets[:, -1]].mean()
        assert module.loss(batch) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("task", ["mnist", "permuted_mnist"])
def test_the_papers_settings(task: str) -> None:
    found = flat(compose(["scale=paper", f"task={task}"]).config)
    expected = {
        "training.batch_size": 50,
        "training.learning_rate": 0.001,
        "training.samples_per_epoch": 50_000,
        "training.max_samples": 40 * 50_000,
        "training.patience": 5,
        "model.channels": 100,
        "model.core.forget_bias": 4.0,
        "task.validation_samples": 10_000,
        "task.test_samples": 10_000,
        "task.permuted": task == "permuted_mnist",
    }
    assert {key: found[key] for key in expected} == expected


def test_a_run_says_what_it_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(tiny(tmp_path))
    said = capsys.readouterr().out
    assert "\ndigits, 2D tLSTM, L=2: " in said
    record = record_of(tmp_path)
    assert record.task == "digits"
    assert "in place of sequential MNIST" in describe_task(record)
    assert [point.samples for point in record.curve] == [20, 40, 60]
    assert compose(record.overrides).identifier == record.identifier


def test_the_tested_accuracy_is_of_the_labels(trained: Path) -> None:
    record = record_of(trained)
    config = compose(record.overrides).config
    data = make_data(config)
    module = make_module(config, data)
    module.load_state_dict(load(run_directory(trained), "best")["state_dict"])
    with torch.no_grad():
        hits = [
            module.network(sample.inputs[None])[0, -1].argmax() == sample.targets[-1]
            for sample in (data.test_set[i] for i in range(20))
        ]
    assert record.test["accuracy"] == pytest.approx(sum(map(int, hits)) / 20)


def test_files_train_from_end_to_end(tmp_path: Path) -> None:
    data_dir = write(tmp_path / "data", packed=True)
    overrides = ["task=mnist", *other_data(data_dir), "training.max_samples=20"]
    record = train_here(tiny(tmp_path / "runs", "task=permuted_mnist", *overrides))
    assert (record.task, record.samples) == ("tiny_mnist", 20)
    assert "data_dir" in record.config["task"]


def test_an_interrupted_run_ends_the_same(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another process reads the samples."""
    learn, count = SequenceModule.training_step, 0

    def failing(self: SequenceModule, batch: Batch, index: int) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyError
        learn(self, batch, index)

    overrides = tiny(tmp_path / "again", "trainer.num_workers=1")
    monkeypatch.setattr(SequenceModule, "training_step", failing)
    with pytest.raises(KeyError):
        train_here(overrides)
    train_here(overrides)
    again, whole = (result(record_of(place)) for place in (tmp_path / "again", trained))
    del again["config"]["trainer"], whole["config"]["trainer"]
    assert again == whole
    assert_same_weights(run_directory(tmp_path / "again"), run_directory(trained))


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], ids=["cpu", "cuda"]
)
def test_captured_training_is_the_same(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many steps at a time, of features instead of tokens."""
    if device == "cpu":
        monkeypatch.setattr(captured, "CudaGraph", HostGraph)
        monkeypatch.setattr(callbacks, "CudaGraph", HostGraph)
        monkeypatch.setattr(job, "cuda_graph_obstacle", lambda *_: None)
    place = f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"
    ways = {"captured": ["trainer.cuda_graph=true", "trainer.steps_per_launch=2"], "plain": []}
    losses = {
        name: [
            point.loss
            for point in train_here(
                tiny(tmp_path / name, place, "trainer.cuda_graph=false", *way)
            ).curve
        ]
        for name, way in ways.items()
    }
    tolerance = 0 if device == "cpu" else 1e-4
    assert losses["captured"] == pytest.approx(losses["plain"], rel=tolerance, abs=0)


def test_digits_are_learnt(tmp_path: Path) -> None:
    """Far beyond chance, by a small model."""
    record = train_here(
        tiny(
            tmp_path,
            "model=slstm",
            "model.depth=1",
            "model.channels=24",
            "training.batch_size=50",
            "training.learning_rate=0.02",
            "training.samples_per_epoch=1250",
            "training.max_samples=5000",
            "task.validation_samples=250",
        )
    )
    assert record.best["accuracy"] > 0.3
