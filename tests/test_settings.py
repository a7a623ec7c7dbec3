"""Settings of the training beyond the paper's: what each of them does, and that alone."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from commands import TINY, files_below, measure_quickly, run_directory, tiny, train_here
from tlstm.records import provenance
from tlstm.records.schema import parse_record
from tlstm.sweeping.grid import SWEEPS, read_runs
from tlstm.tasks.base import Batch
from tlstm.training import cores
from tlstm.training.callbacks import falls
from tlstm.training.config import CONFIGURATIONS, compose, leaves
from tlstm.training.module import SequenceModule
from tlstm.training.run import make_data, make_module, set_up_torch, setup_run
from tlstm.utils import sentence

MODELS = ["tlstm_3d_cn", "slstm", "grid_lstm_tied", "trnn_2d"]
NORM = 0.05  # below that of the first gradients


AS_DRAWN = ("initialization=torch7",)

# What no setting expects, or what only some do
HOSTILE = (
    *("", " ", "null", "None", "nan", "inf", "-inf", "-1", "0", "1", "0.5", "1e9", "1000000000"),
    *("9" * 40, "true", "[]", "{}", "{a: 1}", "${seed}", "../x", "a b", "a,b", "é日", "'", '"x'),
    *("a\0b", "a\nb", "???", "~", "a=b", "-", "x" * 300, "os.system", "\udcff", "<b>[x]$"),
)
BASES = {
    "memorization": (*TINY, "model=tlstm_3d_cn"),
    "digits": ("task=digits", "model=tlstm_2d"),
    "python_topics": ("task=python_topics", "model=slstm"),
    "addition": ("task=addition", "model=grid_lstm_tied"),
}
CHOSEN = ("task", "model", "initialization", "scale", "experiment", "trainer", "logger", "sizes")
NONE_OF_THEM = ("", "label", "depth", "_wandb", "hydra.run.dir", "task@x", "+seed", "~seed")


def made(tmp_path: Path, *settings: str) -> tuple[SequenceModule, Batch]:
    """A module with its weights as drawn, if nothing else is said, and its first batch."""
    config = compose(tiny(tmp_path, *AS_DRAWN, *settings)).config
    set_up_torch(config)
    data = make_data(config)
    return make_module(config, data), next(iter(data.train_dataloader()))


def gradients(module: SequenceModule, batch: Batch) -> list[Tensor]:
    """What an optimizer step leaves of the gradients."""
    module._learn(batch, module.configure_optimizers(), Tensor.backward)
    found = [parameter.grad for parameter in module.parameters()]
    return [gradient for gradient in found if gradient is not None]


def norm(tensors: list[Tensor]) -> float:
    """Of all numbers together."""
    return float(torch.cat([tensor.flatten() for tensor in tensors]).double().norm())


def test_the_loss_is_over_the_answer_or_over_all_positions(tmp_path: Path) -> None:
    module, batch = made(tmp_path)
    logits = module.network(batch.inputs)
    each = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    assert 0 < batch.loss_mask.sum() < batch.loss_mask.numel()
    torch.testing.assert_close(module.loss(batch), each[batch.loss_mask.flatten()].mean())
    everywhere, _ = made(tmp_path, "training.loss=all")
    torch.testing.assert_close(everywhere.loss(batch), each.mean())
    summed, _ = made(tmp_path, "training.loss=sum")
    of_samples = (each.unflatten(0, batch.targets.shape) * batch.loss_mask).sum(1)
    torch.testing.assert_close(summed.loss(batch), of_samples.mean())


@pytest.mark.parametrize("task", ["digits", "python_topics"])
def test_a_loss_over_all_positions_needs_targets_there(task: str, tmp_path: Path) -> None:
    config = compose(["scale=smoke", f"task={task}", "training.loss=all"]).config
    with pytest.raises(ValueError, match=f"loss=all cannot be: {task} has no targets beside"):
        make_module(config, make_data(config))


def test_gradients_are_clipped_all_together(tmp_path: Path) -> None:
    whole = gradients(*made(tmp_path))
    clipped = gradients(*made(tmp_path, f"training.gradient_clip={NORM}"))
    assert norm(whole) > NORM
    assert norm(clipped) == pytest.approx(NORM, rel=1e-4)
    for small, large in zip(clipped, whole, strict=True):
        torch.testing.assert_close(small, large * NORM / norm(whole), rtol=1e-4, atol=1e-9)
    for same, large in zip(
        gradients(*made(tmp_path, "training.gradient_clip=1000")), whole, strict=True
    ):
        torch.testing.assert_close(same, large, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["rmsprop", "sgd"])
def test_other_optimizers_are_those_of_their_papers(kind: str, tmp_path: Path) -> None:
    """Two steps of one parameter against the formulas."""
    module, batch = made(tmp_path, f"training.optimizer={kind}", "training.momentum=0.5")
    weight = module.network.head.bias
    optimizer, expected = module.configure_optimizers(), weight.detach().double()
    square = buffer = torch.zeros_like(expected)
    for _ in range(2):
        module._learn(batch, optimizer, Tensor.backward)
        assert weight.grad is not None
        update = weight.grad.double()
        square = 0.9 * square + 0.1 * update**2
        update = update / (square.sqrt() + 1e-8) if kind == "rmsprop" else update
        buffer = 0.5 * buffer + update
        expected = expected - module.learning_rate * buffer
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("patience", "expected"),
    [(0, [1, 2, 3, 4, 5, 6]), (1, [0, 0, 1, 2, 2, 3]), (2, [0, 0, 0, 1, 1, 1])],
)
def test_the_learning_rate_falls_where_validation_does_not_improve(
    patience: int, expected: list[int]
) -> None:
    costs = [3.0, 2.0, 2.0, float("inf"), 1.0, 1.5]
    assert [falls(costs[:number], patience) for number in range(1, 7)] == expected


def test_a_rate_that_falls_is_that_of_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in the size of the steps of plain gradient descent."""
    measure_quickly(monkeypatch)
    rates, learn = [], SequenceModule.learn

    def noted(self: SequenceModule, batch: Batch) -> Tensor:
        weight = self.network.head.bias
        before = weight.detach().clone()
        loss = learn(self, batch)
        assert weight.grad is not None
        rates.append(float((before - weight.detach()).norm() / weight.grad.norm()))
        return loss

    monkeypatch.setattr(SequenceModule, "learn", noted)
    settings = ("training.optimizer=sgd", "training.learning_rate=0.1", "training.rate_decay=0.5")
    train_here(tiny(tmp_path, *settings))
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025], rel=1e-3)


@pytest.mark.parametrize("table", ["table1", "table3"])
def test_every_row_of_another_paper_has_its_training(table: str) -> None:
    """Which its experiment sets, and no other one."""
    runs = read_runs(SWEEPS / f"{table}-comparators.yaml", ["scale=paper"])
    files = {file.stem for file in (CONFIGURATIONS / "published" / table).glob("*.yaml")}
    assert {run.config.model.name for run in runs} == files
    for run in runs:
        usual = compose([*run.overrides, "experiment=scratch"])
        assert (usual.identifier == run.identifier) == (run.config.model.name == "mlstm")


def test_the_learning_rate_rises_evenly_to_its_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against torch's own schedule: a rise over four steps, and two more with the whole."""
    measure_quickly(monkeypatch)
    settings = "training.warmup_samples=60", "training.max_samples=90"
    train_here(tiny(tmp_path, *settings, "training.samples_per_epoch=90"))
    checkpoint = run_directory(tmp_path) / "checkpoints" / "last.ckpt"
    trained = torch.load(checkpoint, weights_only=True)["state_dict"]

    config = compose(tiny(tmp_path, *settings, "training.samples_per_epoch=90")).config
    set_up_torch(config)
    data = make_data(config)
    module = make_module(config, data)
    optimizer = Adam(module.parameters(), lr=config.training.learning_rate)
    schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4))
    for batch in data.train_dataloader():
        optimizer.zero_grad()
        module.loss(batch).backward()
        optimizer.step()
        schedule.step()
    assert schedule.last_epoch == 6
    for name, value in module.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("model", MODELS)
def test_the_initial_scale_is_that_of_the_cores_weights(model: str, tmp_path: Path) -> None:
    drawn, _ = made(tmp_path, f"model={model}")
    scaled, _ = made(tmp_path, f"model={model}", "initialization.scale=3")
    multiplied = 0
    for (name, before), after in zip(drawn.named_parameters(), scaled.parameters(), strict=True):
        weight = name.startswith("network.core.weight")
        torch.testing.assert_close(after, 3 * before if weight else before, rtol=0, atol=0)
        multiplied += weight
    assert multiplied >= 2


@pytest.mark.parametrize("model", MODELS)
def test_the_initial_range_is_that_of_the_cores_weights(model: str, tmp_path: Path) -> None:
    drawn, _ = made(tmp_path, f"model={model}", "model.channels=100")
    ranged, _ = made(
        tmp_path, f"model={model}", "model.channels=100", "initialization.hidden_range=0.3"
    )
    for (name, before), after in zip(drawn.named_parameters(), ranged.parameters(), strict=True):
        if name.startswith("network.core.weight"):
            values = after.double().flatten()
            assert 0.29 < values.abs().max() <= 0.3
            tolerance = 5 / len(values) ** 0.5
            assert abs(values.mean()) < 0.3 * tolerance
            assert abs((values**2).mean() - 0.3**2 / 3) < 0.3**2 * tolerance  # as of no other
        else:
            torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("model", MODELS)
def test_biases_may_begin_with_zero_but_for_the_forget_gates(model: str, tmp_path: Path) -> None:
    drawn, _ = made(tmp_path, f"model={model}")
    zero, _ = made(tmp_path, f"model={model}", "initialization.bias_range=0")
    forgetting = 0
    for (name, before), after in zip(drawn.named_parameters(), zero.parameters(), strict=True):
        if name.startswith("network.core.bias"):
            assert before.count_nonzero() > 0
            forgets = (before == 1) & (after == 1)
            assert (after[~forgets] == 0).all()
            forgetting += int(forgets.sum())
        else:
            torch.testing.assert_close(after, before, rtol=0, atol=0)
    core = zero.network.core
    gates = {"tlstm_3d_cn": 1, "slstm": 1, "grid_lstm_tied": 2, "trnn_2d": 0}[model]
    assert forgetting == gates * core.channels


@pytest.mark.parametrize("model", MODELS)
def test_the_inputs_projection_may_be_drawn_as_embeddings_are(model: str, tmp_path: Path) -> None:
    wide = f"model={model}", "model.channels=400"
    drawn, _ = made(tmp_path, *wide)
    normal, _ = made(tmp_path, *wide, "initialization.input_range=normal")
    for (name, before), after in zip(drawn.named_parameters(), normal.parameters(), strict=True):
        if name != "network.core.weight_input":
            torch.testing.assert_close(after, before, rtol=0, atol=0)
    weights = normal.network.core.get_parameter("weight_input").double().flatten()
    tolerance = 5 / len(weights) ** 0.5  # five standard deviations of the mean
    assert abs(weights.mean()) < tolerance
    assert abs((weights**2).mean() - 1) < 2**0.5 * tolerance
    assert abs((weights**4).mean() - 3) < 96**0.5 * tolerance  # as of no other distribution


def refusal_or_record(overrides: list[str]) -> str | None:
    """What a run is refused with before its first step; None where it can be recorded."""
    try:
        with setup_run(compose(overrides), lambda status: None) as job:
            parse_record(job.blank.model_dump_json().encode(), "the record")
    except (ValueError, OSError) as error:
        return sentence(error)
    return None


@pytest.mark.parametrize("task", BASES)
def test_every_setting_with_any_value_is_refused_or_can_be_recorded(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every setting with a part of the values, up to the moment before the first step."""
    monkeypatch.setattr(provenance, "commit", lambda: (None, False))
    monkeypatch.chdir(tmp_path)
    base = ("scale=smoke", "logger=csv", "trainer.accelerator=cpu", "trainer.threads=1")
    base = (*base, *BASES[task], f"output_dir={tmp_path / 'runs'}")
    keys = [*leaves(compose(base).config), *CHOSEN, *NONE_OF_THEM]
    own = keys if task == "memorization" else [k for k in keys if k.startswith(("task.", "model."))]
    for number, key in enumerate(own):
        for value in HOSTILE[number % 12 :: 12]:
            before = files_below(tmp_path)
            said = refusal_or_record([*base, f"{key}={value}"])
            assert said is None or ("http" not in said and files_below(tmp_path) == before)
    torch.set_num_threads(1)


def test_ranges_may_be_given_one_by_one_and_so_may_the_gain(tmp_path: Path) -> None:
    ranges = "initialization.input_range=0.5", "initialization.bias_range=0.25"
    module, _ = made(tmp_path, "model=tlstm_3d_cn", *ranges, "initialization.norm_gain=0.1")
    core = module.network.core
    largest = {name: float(value.abs().max()) for name, value in core.named_parameters()}
    assert 0.4 < largest["weight_input"] <= 0.5
    assert 0.2 < largest["bias_input"] <= 0.25
    assert (core.get_parameter("normalization_gain") == 0.1).all()
    with pytest.raises(ValueError, match=r"norm_gain=0.1 cannot be: .* no normalization"):
        made(tmp_path, "model=slstm", "initialization.norm_gain=0.1")


def test_threads_are_those_of_the_cores_that_the_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4, 5})
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "OWN_GROUP", tmp_path / "cgroup")
    assert (cores.cores(), cores.threads_each(4), cores.threads_each(99)) == (6, 1, 1)
    (tmp_path / "cgroup").write_text("0::/job/step\n")
    for place, limit, expected in (
        (".", "max 100000", 6),
        ("job", "450000 100000", 4),
        ("job/step", "50000 100000", 1),
    ):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "cpu.max").write_text(f"{limit}\n")
        assert cores.cores() == expected
    for told, expected in (("3", 3), ("2,4", 2), ("0", 1), ("many", 1), ("", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert cores.threads_each(1) == expected
