"""The fast implementations against the reference under autograd: values and every gradient.

The expected values are computed in float64 on the CPU, from the same rounded weights and inputs.
"""

from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import variants
from oracle import Options
from paths import (
    FORMS,
    INTEGERS,
    LAYOUTS,
    PATHS,
    PYTORCH,
    Path,
    assert_agreement,
    assert_layouts_do_not_matter,
    column,
    expanded,
    for_each_path,
    moved,
    pair,
    rounded,
)
from variants import (
    LENGTHS,
    Result,
    as_tuple,
    assert_near,
    generic_loss,
    outcome,
    random_inputs,
    random_state,
    relative_rms_error,
)

KINDS: list[tuple[bool, bool, Any]] = [  # gated or not, memory convolution, normalization
    (False, False, None),
    *[(True, memory, norm) for memory in (True, False) for norm in (None, "channel", "layer")],
]
EVERY_COMBINATION = [
    Options(rank, size, kernel, *kind)
    for rank in (2, 3, 4)
    for kernel in (2, 3, 4)
    for size in (1, 2, 3, 4, 5)
    for kind in KINDS
]
SOME = [  # of the kernels' ranks and sizes
    Options(2, 3, 3, gated=False),
    Options(3, 2, 2, gated=False),
    Options(2, 1, 3),
    Options(2, 4, 3, memory_convolution=False),
    Options(2, 3, 4, normalization="layer"),
    Options(3, 3, 3, normalization="channel"),
    Options(3, 2, 2, memory_convolution=False, normalization="channel"),
]

AUTOGRAD = PYTORCH._replace(implementation="autograd")

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def for_each(options: list[Options]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("options", options, ids=variants.variant_id)


# Every combination, and every form of a call


@for_each(EVERY_COMBINATION)
def test_equals_the_cell(options: Options) -> None:
    for forward in FORMS.values():
        assert_agreement(PYTORCH, options, forward, random_inputs(batch_size=len(LENGTHS)))


@for_each_path
@pytest.mark.parametrize("form", FORMS)
@for_each(SOME)
def test_equals_the_cell_on_every_path(options: Options, form: str, path: Path) -> None:
    assert_agreement(path, options, FORMS[form], random_inputs(batch_size=len(LENGTHS)))


@for_each_path
@for_each(SOME[::3])
def test_one_timestep_and_one_example(options: Options, path: Path) -> None:
    for form in ("whole", "stream"):
        assert_agreement(path, options, FORMS[form], random_inputs(1, 1))


@for_each_path
def test_the_weights_gradient_is_summed_over_parts_of_the_sequence(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two timesteps at a time, and the last one alone."""
    module, limit, two_timesteps = {
        "pytorch": ("eager.sequence", "GRADIENT_ROWS", 2 * 27),
        "triton": ("triton.backward", "GRADIENT_NUMBERS", 3000),
    }[path.implementation]
    monkeypatch.setattr(f"tlstm.ops.{module}.{limit}", two_timesteps)
    options = Options(3, 3, 3, normalization="channel")
    assert_agreement(path, options, FORMS["whole"], random_inputs(5, 3))


@pytest.mark.parametrize("path", [pytest.param(AUTOGRAD, id="autograd"), *PATHS])
@settings(max_examples=25, derandomize=True, database=None)
@given(
    options=st.sampled_from(SOME),
    layouts=st.lists(st.sampled_from(LAYOUTS), min_size=2, max_size=13),
    integer=st.sampled_from(INTEGERS),
)
@example(options=SOME[-2], layouts=[expanded], integer=torch.int64)
@example(options=SOME[-2], layouts=[column], integer=torch.uint16)
def test_layouts_do_not_matter(path: Path, options: Options, layouts: Any, integer: Any) -> None:
    assert_layouts_do_not_matter(path, options, layouts, integer)


# Gradients of some sources, of some results, and once more


def parts_and_sources(
    module: Any, inputs: Tensor, state: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Name the results of a call, and the tensors that have gradients."""
    inputs.requires_grad_()
    variants.change_state(state, Tensor.requires_grad_)
    output, last = module(inputs, state)
    parts = {"output": output, **variants.state_names("state", last)}
    sources = {"input": inputs, **variants.state_names("initial state", state)}
    return parts, sources | dict(module.named_parameters())


@for_each_path
@pytest.mark.parametrize("used", ["output", "state h", "state c", "output, state c"])
@for_each([Options(3, 2, 3, normalization="channel"), Options(2, 3, 3, gated=False)])
def test_a_loss_may_use_some_of_what_is_returned(options: Options, used: str, path: Path) -> None:
    def gradients(module: Any, inputs: Tensor, state: Any) -> dict[str, Tensor]:
        parts, sources = parts_and_sources(module, inputs, state)
        loss = generic_loss(part for name, part in parts.items() if name in used)
        found = torch.autograd.grad(loss, list(sources.values()), materialize_grads=True)
        return dict(zip(sources, found, strict=True))

    if not options.gated:
        used = used.replace("state c", "state h")
    layer, reference = pair(path, options)
    inputs, state = random_inputs(), random_state(reference)
    actual = gradients(layer, *moved(path, inputs, state))
    expected = gradients(reference, *rounded(path, inputs, state))
    assert_near(actual, expected, path.tolerance)


@for_each_path
@for_each([Options(3, 2, 3, normalization="channel"), Options(2, 3, 2, gated=False)])
def test_every_source_may_be_the_only_one_that_needs_a_gradient(
    options: Options, path: Path
) -> None:
    layer, _ = pair(path, options)
    inputs, state = moved(path, random_inputs(), random_state(layer))
    expected = outcome(layer, variants.whole, inputs, state)
    _, sources = parts_and_sources(layer, inputs, state)
    for name, source in sources.items():
        for other in sources.values():
            other.requires_grad_(other is source)
        output, last = layer(inputs, state)
        loss = generic_loss([output, *as_tuple(last)])
        (gradient,) = torch.autograd.grad(loss, source)
        assert torch.equal(gradient, expected[f"gradient of {name}"]), name


@for_each_path
@for_each(SOME[::2])
def test_a_second_backward_pass_gives_the_same(options: Options, path: Path) -> None:
    layer, _ = pair(path, options)
    inputs, state = moved(path, random_inputs(), random_state(layer))
    parts, sources = parts_and_sources(layer, inputs, state)
    loss, by = generic_loss(parts.values()), list(sources.values())
    first = torch.autograd.grad(loss, by, retain_graph=True)
    layer(2 * inputs)  # writes buffers of its own
    second = torch.autograd.grad(loss, by)
    assert all(map(torch.equal, first, second))


@for_each_path
@for_each(SOME[::2])
def test_without_gradients_the_values_are_the_same(options: Options, path: Path) -> None:
    layer, _ = pair(path, options)
    inputs, state = moved(path, random_inputs(), random_state(layer))
    expected = layer(inputs, state)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            output, last = layer(inputs, state)
        assert not output.requires_grad
        assert torch.equal(output, expected[0])
        assert all(map(torch.equal, as_tuple(last), as_tuple(expected[1])))
    layer.requires_grad_(False)
    assert torch.equal(layer(inputs, state)[0], expected[0])


@for_each_path
@for_each([Options(3, 2, 3, normalization="layer"), Options(2, 3, 3, gated=False)])
def test_an_example_that_is_not_a_number_spoils_no_other(options: Options, path: Path) -> None:
    layer, _ = pair(path, options)
    inputs, state = random_inputs(batch_size=3), random_state(layer, 3)
    spoilt = inputs.index_fill(1, torch.tensor(1), float("nan"))
    sound, mixed = (
        outcome(layer, variants.whole, *moved(path, each, state)) for each in (inputs, spoilt)
    )
    assert mixed["output"][:, 1].isnan().all()
    weights = {f"gradient of {name}" for name, _ in layer.named_parameters()}
    for name in sound.keys() - weights:
        axis = 1 if name in ("output", "gradient of input") else 0
        (first, _, third), expected = mixed[name].unbind(axis), sound[name].unbind(axis)
        assert torch.equal(first, expected[0]), name
        assert torch.equal(third, expected[2]), name


# Streams


@for_each_path
@settings(max_examples=15, derandomize=True, database=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), options=st.sampled_from(SOME))
def test_a_stream_may_come_in_any_chunks(path: Path, sizes: list[int], options: Options) -> None:
    def in_chunks(module: Any, inputs: Tensor, state: Any) -> Result:
        outputs = []
        for end, size in zip(accumulate(sizes), sizes, strict=True):
            output, state = module(inputs[end - size : end], state, stream=True)
            outputs.append(output)
        return torch.cat(outputs), state

    layer, reference = pair(path, options)
    inputs, state = random_inputs(sum(sizes)), random_state(reference)
    actual = outcome(layer, in_chunks, *moved(path, inputs, state))
    expected = outcome(reference, FORMS["stream"], *rounded(path, inputs, state))
    assert_near(actual, expected, path.tolerance)


# Lower precision, at sizes that no tile divides

ODD_SIZES = [  # options, channels, examples
    (Options(2, 5, 3), 100, 50),
    (Options(3, 3, 3, normalization="channel"), 100, 15),
    (Options(2, 3, 2, memory_convolution=False), 100, 1),
    (Options(2, 4, 3, gated=False), 100, 15),
    (Options(3, 2, 3, normalization="layer"), 100, 15),
    (Options(3, 2, 3, normalization="channel"), 522, 1),
    (Options(2, 2, 3), 901, 15),
]
# Some roundings, whose number differs with the order of the sums
ROUNDING = {torch.float32: 2**-20, torch.bfloat16: 2**-9}
LARGEST_ERROR = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@for_each_path
@pytest.mark.parametrize("compute_dtype", LARGEST_ERROR, ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("options", "channels", "batch_size"),
    ODD_SIZES,
    ids=[f"{variants.variant_id(it)}-M{channels}-B{batch}" for it, channels, batch in ODD_SIZES],
)
def test_the_error_of_lower_precision(
    options: Options,
    channels: int,
    batch_size: int,
    compute_dtype: torch.dtype,
    path: Path,
) -> None:
    path = path._replace(dtype=torch.float32, tolerance=LARGEST_ERROR[compute_dtype])

    def in_precision(module: Any, inputs: Tensor, state: Any) -> Result:
        with torch.autocast(path.device, compute_dtype, enabled=compute_dtype == torch.bfloat16):
            return module(inputs, state)

    layer, reference = pair(path, options, channels)
    inputs, state = random_inputs(3, batch_size), random_state(reference, batch_size)
    actual = outcome(layer, in_precision, *moved(path, inputs, state))
    expected = outcome(reference, variants.whole, *rounded(path, inputs, state))
    assert actual["output"].dtype == compute_dtype
    assert all(actual[name].dtype == torch.float32 for name in actual if name != "output")
    assert_near(actual, expected, path.tolerance)

    layer.implementation = "autograd"
    usual = outcome(layer, in_precision, *moved(path, inputs, state))
    for name, value in expected.items():
        error, usual_error = (relative_rms_error(it[name].cpu(), value) for it in (actual, usual))
        assert error <= max(2 * usual_error, ROUNDING[compute_dtype]), name
