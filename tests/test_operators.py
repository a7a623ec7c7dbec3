"""The operators among PyTorch's tools: torch.library, compile, export, autocast, transforms."""

import io
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import variants
from oracle import Options
from paths import PYTORCH, Path, for_each_path, moved, pair
from tlstm import TensorizedLSTM
from tlstm.layers.grid_lstm import GridLSTM
from tlstm.layers.stacked import StackedLSTM
from tlstm.ops.reference import normalize
from variants import (
    CHANNELS,
    LENGTHS,
    Result,
    as_tuple,
    assert_near,
    generic_loss,
    make_layer,
    outcome,
    random_inputs,
    random_state,
    random_tensor,
)

LSTM = Options(3, 2, 3, normalization="channel")
RNN = Options(2, 3, 2, gated=False)
for_either = pytest.mark.parametrize("options", [LSTM, RNN], ids=["LSTM", "RNN"])
for_some = pytest.mark.parametrize(
    "options",
    [LSTM, RNN, Options(2, 4, 3, memory_convolution=False, normalization="layer")],
    ids=variants.variant_id,
)


@pytest.fixture(autouse=True)
def no_implementation_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TLSTM_IMPLEMENTATION", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def layer_and_arguments(path: Path, options: Options, *sizes: int) -> tuple[Any, Tensor, Any]:
    """A layer, inputs [T, B, input_size] of these sizes, and a state."""
    layer, _ = pair(path, options)
    inputs = random_inputs(*sizes)
    return layer, *moved(path, inputs, random_state(layer, inputs.shape[1]))


# The operators themselves

OPERATORS = {
    "pytorch": ["tlstm.sequence.default", "tlstm.sequence_backward.default"],
    "triton": [
        "tlstm.project.default",
        "tlstm.sequence.default",
        "tlstm.sequence_backward.default",
        "tlstm.project_backward.default",
    ],
}


class Calls(TorchDispatchMode):
    """A record of the calls of the package's operators, with arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        returned = function(*arguments, **(keywords or {}))
        if function.namespace == "tlstm":
            self.calls.append((function, arguments, returned))
        return returned


def detached(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tree_map_only(Tensor, Tensor.detach, arguments)


def needing_gradients(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments as leaves of the graph; lengths are integers and need none."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().requires_grad_(tensor.is_floating_point())

    return tree_map_only(Tensor, leaf, arguments)


def calls_of(path: Path, options: Options, used: int | None, **arguments: Any) -> list[Any]:
    """The operators' calls for a sequence, and backward from one of its parts, or from all."""
    layer, inputs, state = layer_and_arguments(path, options, 4, len(LENGTHS))
    state = variants.change_state(state, Tensor.requires_grad_)
    with Calls() as recorded:
        output, last = layer(inputs.requires_grad_(), state, **arguments)
        parts = [output, *as_tuple(last)]
        if output.requires_grad:
            generic_loss(parts if used is None else [parts[used]]).backward()
    return recorded.calls


def checks(path: Path) -> list[str]:
    """Name the checks of the forward operator.

    The kernels leave some of their saved tensors unwritten; these cannot be compared.
    """
    always = ["test_schema", "test_autograd_registration", "test_faketensor"]
    return [*always, "test_aot_dispatch_dynamic"] if path.implementation == "pytorch" else always


@for_each_path
@pytest.mark.parametrize("used", [None, 0, 1], ids=["all", "output", "h"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@for_some
def test_the_operators_are_what_they_say(
    options: Options, lengths: list[int] | None, used: int | None, path: Path
) -> None:
    """Schema, shapes for tracing, formula for autograd, under dynamic shapes too."""
    calls = calls_of(path, options, used, lengths=lengths)
    assert [str(function) for function, _, _ in calls] == OPERATORS[path.implementation]
    for function, arguments, _ in calls:
        if str(function).endswith("_backward.default"):
            torch.library.opcheck(function, detached(arguments))
        else:
            torch.library.opcheck(function, needing_gradients(arguments), test_utils=checks(path))


@for_each_path
@for_some
def test_the_operator_without_gradients_is_what_it_says(options: Options, path: Path) -> None:
    with torch.no_grad():
        calls = calls_of(path, options, None)
    for function, arguments, _ in calls:
        torch.library.opcheck(function, detached(arguments), test_utils=checks(path))


def layouts(tensors: tuple[Tensor, ...]) -> list[Any]:
    return [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors]


@for_each_path
@pytest.mark.parametrize("autocast", [False, True], ids=["", "bfloat16"])
@for_some
def test_tracing_knows_every_stride(options: Options, autocast: bool, path: Path) -> None:
    """Inductor's code reads the memory by the strides of tracing."""
    layer, inputs, state = layer_and_arguments(path._replace(dtype=torch.float32), options)
    bfloat16 = torch.autocast(path.device, torch.bfloat16, enabled=autocast)

    def transposed(tensor: Tensor) -> Tensor:
        return tensor.mT.contiguous().mT.requires_grad_()

    for change in (Tensor.requires_grad_, transposed):
        with bfloat16, Calls() as recorded:
            output, last = layer(change(inputs), variants.change_state(state, change), stream=True)
            generic_loss([output, *as_tuple(last)]).backward()
        for function, arguments, returned in recorded.calls:
            fake = FakeTensorMode()
            without_values = tree_map_only(Tensor, fake.from_tensor, detached(arguments))
            with fake:
                traced = function(*without_values)
            assert layouts(traced) == layouts(returned)


@for_each_path
@for_some
def test_only_what_gradients_need_is_kept(options: Options, path: Path) -> None:
    def kept(timesteps: int, context: Any, frozen: bool = False) -> int:
        layer, inputs, state = layer_and_arguments(path, options, timesteps)
        layer.requires_grad_(not frozen)
        with context(), Calls() as recorded:
            layer(inputs, state)
        ((_, _, _, *history),) = (
            returned
            for function, _, returned in recorded.calls
            if str(function) == "tlstm.sequence.default"
        )
        return sum(tensor.numel() for tensor in history)

    assert kept(9, torch.enable_grad) > 1.5 * kept(4, torch.enable_grad)
    for context in (torch.no_grad, torch.inference_mode):
        assert kept(9, context) == kept(4, context) < kept(4, torch.enable_grad)
    assert kept(9, torch.enable_grad, frozen=True) == kept(9, torch.no_grad)


# torch.compile and torch.export


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


SIZES = [(5, 7), (4, 6), (11, 4), (8, 13)]  # timesteps and examples


@pytest.mark.usefixtures("fresh_compiler")
@for_each_path
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@for_some
def test_one_compilation_is_for_all_sizes(options: Options, stream: bool, path: Path) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    layer, _ = pair(path, options)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)

    def by_compiled(module: Any, inputs: Tensor, state: Any) -> Result:
        return compiled(inputs, state, stream=stream)

    def by_layer(module: Any, inputs: Tensor, state: Any) -> Result:
        return layer(inputs, state, stream=stream)

    for time, batch_size in SIZES:
        arguments = moved(path, random_inputs(time, batch_size), random_state(layer, batch_size))
        expected = outcome(layer, by_layer, *arguments)
        assert_near(outcome(layer, by_compiled, *arguments), expected, 0.1 * path.tolerance)
    assert counter.frame_count == 1


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_choice_can_be_compiled(device: str) -> None:
    layer = TensorizedLSTM(2, 8, 3, device=device)
    compiled: Any = torch.compile(layer, fullgraph=True, backend="aot_eager")
    path = Path("", device, torch.float32, 0)
    arguments = moved(path, random_inputs(), random_state(layer))
    for autocast, tolerance in ((False, 1e-6), (True, 1e-2)):

        def forward(module: Any, inputs: Tensor, state: Any, autocast: bool = autocast) -> Result:
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                return module(inputs, state)

        def by_compiled(
            module: Any, inputs: Tensor, state: Any, forward: variants.Forward = forward
        ) -> Result:
            return forward(compiled, inputs, state)

        expected = outcome(layer, forward, *arguments)
        assert_near(outcome(layer, by_compiled, *arguments), expected, tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@for_each_path
def test_inductor_compiles_forward_and_backward(path: Path) -> None:
    layer, inputs, state = layer_and_arguments(path, LSTM)
    compiled = torch.compile(layer, fullgraph=True)

    def by_compiled(module: Any, inputs: Tensor, state: Any) -> Result:
        return compiled(inputs, state)

    expected = outcome(layer, variants.whole, inputs, state)
    assert_near(outcome(layer, by_compiled, inputs, state), expected, path.tolerance)


def exported(layer: nn.Module, arguments: tuple[Any, ...], strict: bool) -> nn.Module:
    """The layer as a program for any time and batch size, saved and loaded."""
    batch = torch.export.Dim("batch", min=2, max=1000)
    time = torch.export.Dim("time", min=2, max=10000)
    _, state = arguments
    of_parts: list[Any] = [{0: batch} for _ in as_tuple(state)]
    shapes = ({0: time, 1: batch}, variants.like(state, of_parts))
    program = torch.export.export(layer, arguments, dynamic_shapes=shapes, strict=strict)
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    return torch.export.load(stored).module()


READ_ONLY = "ignore:The given buffer is not writable"  # torch.export's own weights


@pytest.mark.filterwarnings(READ_ONLY)
@pytest.mark.usefixtures("fresh_compiler")
@for_each_path
@pytest.mark.parametrize("strict", [False, True], ids=["not strict", "strict"])
@for_some
def test_an_exported_layer_takes_all_sizes(options: Options, strict: bool, path: Path) -> None:
    layer, inputs, state = layer_and_arguments(path, options, *SIZES[0])
    program = exported(layer, (inputs, state), strict)
    for time, batch_size in SIZES:
        arguments = moved(path, random_inputs(time, batch_size), random_state(layer, batch_size))
        expected = outcome(layer, variants.whole, *arguments)
        assert_near(outcome(program, variants.whole, *arguments), expected, 0.1 * path.tolerance)


@pytest.mark.filterwarnings(READ_ONLY)
@pytest.mark.usefixtures("fresh_compiler")
@for_each_path
def test_a_layer_exported_without_gradients_has_none(path: Path) -> None:
    layer, inputs, state = layer_and_arguments(path, LSTM, *SIZES[0])
    with torch.no_grad():
        program = exported(layer, (inputs, state), strict=False)
    output, _ = program(inputs, state)
    assert torch.equal(output, layer(inputs, state)[0])
    with pytest.raises(RuntimeError, match="export it with gradients enabled"):
        output.sum().backward()


@pytest.mark.usefixtures("fresh_compiler")
@for_either
def test_a_layer_for_onnx_has_no_operators_of_its_own(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    layer, inputs = make_layer(options), random_inputs()
    program = torch.export.export(layer, (inputs,))
    assert "tlstm" not in {getattr(node.target, "namespace", "") for node in program.graph.nodes}
    torch.testing.assert_close(program.module()(inputs)[0], layer(inputs)[0])
    layer.implementation = "pytorch"
    with pytest.raises(ValueError, match="'pytorch' has no ONNX operators; 'autograd' has"):
        layer(inputs)


@pytest.mark.filterwarnings("ignore")
@for_either
def test_onnx_computes_the_same(options: Options, tmp_path: pathlib.Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer, inputs = make_layer(options).float(), random_inputs().float()
    torch.onnx.export(layer, (inputs,), str(tmp_path / "layer.onnx"), dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "layer.onnx")
    output, *_ = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), layer(inputs)[0])


# Autocast


def under_autocast(device: str) -> Callable[[Any, Tensor, Any], Any]:
    """A whole sequence with bfloat16 operands."""

    def forward(module: Any, inputs: Tensor, state: Any) -> Result:
        with torch.autocast(device, torch.bfloat16):
            return module(inputs, state)

    return forward


@for_each_path
@for_some
def test_a_backward_pass_may_be_inside_autocast(options: Options, path: Path) -> None:
    layer, inputs, state = layer_and_arguments(path._replace(dtype=torch.float32), options)
    expected = outcome(layer, under_autocast(path.device), inputs, state)
    with torch.autocast(path.device, torch.bfloat16):
        found = outcome(layer, variants.whole, inputs, state)
    # The input's projection is PyTorch's own, whose backward autocast reaches there
    projection = {f"gradient of {name}" for name in ("input", "weight_input", "bias_input")}
    assert_near(found, expected, 2e-2)
    for name in expected.keys() - projection:
        assert torch.equal(found[name], expected[name]), name


@for_some
def test_autocast_leaves_float64_alone(options: Options) -> None:
    layer, inputs, state = layer_and_arguments(PYTORCH, options)
    expected = outcome(layer, variants.whole, inputs, state)
    found = outcome(layer, under_autocast("cpu"), inputs, state)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@for_each_path
@pytest.mark.parametrize("convolution", [False, True], ids=["", "memory convolution"])
def test_autocast_keeps_the_memory_cell_in_float32(convolution: bool, path: Path) -> None:
    """Numbers that bfloat16 has no digits for are stored and normalized."""
    layer, _ = pair(
        path._replace(dtype=torch.float32),
        Options(3, 3, 3, memory_convolution=convolution, normalization="channel"),
    )
    with torch.no_grad():  # input gates closed, forget and output gates open
        for number, bias in enumerate((0, -1e4, 1e4, 1e4)):
            layer.bias_hidden[number * CHANNELS : (number + 1) * CHANNELS] = bias
    hidden, memory = random_state(layer)
    constant = 100 + memory[:, :1, :1].expand_as(memory)  # so that its convolution is the same
    inputs, state = moved(path._replace(dtype=torch.float32), random_inputs(20), (hidden, constant))
    with torch.no_grad():
        _, (h, c) = under_autocast(path.device)(layer, inputs, state)
        normalized = normalize(state[1].double(), layer.double()._normalization())
    assert_near({"c": c}, {"c": state[1]}, 2e-6)
    assert_near({"h": h}, {"h": torch.tanh(normalized)}, 4e-3)


# Gradients of other kinds


@for_each_path
@for_either
def test_a_gradients_gradient_is_refused(options: Options, path: Path) -> None:
    layer, inputs, state = layer_and_arguments(path, options)
    output, _ = layer(inputs.requires_grad_(), state)
    (gradient,) = torch.autograd.grad(output.sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match=r"double backward.*implementation='autograd'"):
        gradient.sum().backward()


def test_the_cell_has_a_gradients_gradient() -> None:
    layer = make_layer(Options(2, 2, 3, normalization="channel"), implementation="autograd")
    inputs = random_inputs(2, 1).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda inputs: layer(inputs)[0], inputs)


def directional(layer: Any, inputs: Tensor, direction: Tensor) -> Tensor:
    """The derivative of the output along a direction, by central differences."""
    with torch.no_grad():
        ahead, behind = (layer(inputs + step * direction)[0] for step in (1e-5, -1e-5))
    return (ahead - behind) / 2e-5


@for_either
def test_transforms_and_forward_derivatives_go_through_the_cell(options: Options) -> None:
    """A custom operator would silently drop the tangents."""
    layer = make_layer(options)
    inputs, direction = random_inputs(), random_tensor(4, 2, 2, seed=20)
    expected = directional(layer, inputs, direction)
    tangent = torch.func.jvp(lambda inputs: layer(inputs)[0], (inputs,), (direction,))[1]
    variants.assert_close(tangent, expected, tolerance=1e-7)
    with forward_ad.dual_level():
        output, _ = layer(forward_ad.make_dual(inputs, direction))
        variants.assert_close(forward_ad.unpack_dual(output).tangent, expected, tolerance=1e-7)

    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return generic_loss([functional_call(layer, parameters, (inputs,))[0]])

    found = torch.func.grad(loss)({name: value.detach() for name, value in parameters.items()})
    gradients = torch.autograd.grad(loss(parameters), list(parameters.values()))
    assert_near(found, dict(zip(parameters, gradients, strict=True)), 1e-12)


def test_an_implementation_that_drops_tangents_refuses_them() -> None:
    layer = make_layer(LSTM, implementation="pytorch")
    inputs = random_inputs()
    with pytest.raises(ValueError, match=r"'pytorch' takes no torch\.func transforms.*'autograd'"):
        torch.func.jvp(lambda inputs: layer(inputs)[0], (inputs,), (inputs,))


# Around a layer, as around torch.nn.LSTM


class Model(nn.Module):
    """A layer with a head, as users write it."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.head = layer.float(), nn.Linear(CHANNELS, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.layer(inputs)[0])


EITHER_STACK = [StackedLSTM(variants.INPUT_SIZE, CHANNELS, 2), GridLSTM(2, CHANNELS, 2)]
for_fast = pytest.mark.parametrize(
    "layer", [make_layer(LSTM), make_layer(RNN)], ids=["LSTM", "RNN"]
)
for_any_layer = pytest.mark.parametrize(
    "layer",
    [make_layer(LSTM), make_layer(RNN), make_layer(LSTM, implementation="autograd"), *EITHER_STACK],
    ids=["LSTM", "RNN", "LSTM step by step", "sLSTM", "Grid LSTM"],
)


def batches(number: int = 3) -> Tensor:
    return random_tensor(number, 4, 2, 2).float()


@for_fast
def test_vmap_computes_for_each(layer: Any) -> None:
    model, inputs = Model(layer), batches()
    for given in (inputs, inputs[:, :, 0]):  # batches, and examples without an axis of them
        expected = torch.stack([model(each) for each in given])
        torch.testing.assert_close(torch.func.vmap(model)(given), expected)


@for_any_layer
def test_gradients_by_example(layer: Any) -> None:
    model, inputs = Model(layer), batches()
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return functional_call(model, weights, (inputs,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, inputs)
    for number, each in enumerate(inputs):
        expected = torch.func.grad(loss)(weights, each)
        assert_near({name: value[number] for name, value in found.items()}, expected, 1e-5)


@for_any_layer
def test_jacobians(layer: Any) -> None:
    model, (inputs,) = Model(layer), batches(1)
    expected = torch.autograd.functional.jacobian(model, inputs)
    for found in (
        torch.func.jacrev(model)(inputs),
        torch.autograd.functional.jacobian(model, inputs, vectorize=True),
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_transforms_inside_a_compiled_function() -> None:
    model, inputs = Model(make_layer(Options(2, 2, 3))), batches(1)[0, :2]

    def derivatives(inputs: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.func.grad(lambda each: model(each).sum())(inputs)
        return gradient, torch.func.jvp(model, (inputs,), (inputs,))[1]

    compiled = torch.compile(derivatives, backend="aot_eager")
    torch.testing.assert_close(compiled(inputs), derivatives(inputs))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("layer", [make_layer(LSTM), make_layer(RNN), *EITHER_STACK])
def test_a_traced_layer_takes_all_sizes(layer: Any) -> None:
    model = Model(layer)
    stored = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, batches(1)[0]), stored)
    stored.seek(0)
    loaded: Any = torch.jit.load(stored)
    for time, batch_size in SIZES:
        inputs = random_inputs(time, batch_size).float()
        torch.testing.assert_close(loaded(inputs), model(inputs))
    loaded(inputs).sum().backward()
    assert all(parameter.grad.any() for parameter in loaded.parameters())


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@for_any_layer
def test_a_compiled_model_takes_every_form(layer: Any) -> None:
    model = Model(layer)
    compiled: Any = torch.compile(model, backend="aot_eager")
    for inputs in (*batches(1), batches(1)[0, :, 0], batches(1)[0, :, :0]):
        torch.testing.assert_close(compiled(inputs), model(inputs))
    packed = pack_padded_sequence(random_inputs(4, 3).float(), LENGTHS, enforce_sorted=False)
    run = torch.compile(lambda packed: model.layer(packed)[0].data + 1, backend="aot_eager")
    torch.testing.assert_close(run(packed), model.layer(packed)[0].data + 1)


@for_any_layer
def test_what_cannot_be_traced_names_the_way_out(layer: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"torch\.compile, torch\.export or torch\.jit"):
        torch.jit.script(Model(layer))
    with pytest.raises(TypeError, match="is_leaf_module"):
        torch.fx.symbolic_trace(Model(layer))


@pytest.mark.filterwarnings(READ_ONLY, "ignore::torch.jit.TracerWarning")
@pytest.mark.usefixtures("fresh_compiler", "poisoned_memory")
@for_each_path
@for_some
def test_lengths_that_no_program_can_refuse(options: Options, path: Path) -> None:
    """The nearest ones are taken, and no memory that nobody has written."""
    layer, inputs, state = layer_and_arguments(path, options, 4, 3)

    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
            output, last = self.layer(inputs, state, lengths=lengths)
            return output, *as_tuple(last)

    program, lengths = Program(), torch.tensor([2, 3, 1]).to(path.device)
    expected = program(inputs, torch.tensor([1, 4, 4]).to(path.device))
    for made in (
        torch.compile(program, backend="aot_eager", fullgraph=True),
        torch.export.export(program, (inputs, lengths)).module(),
        torch.jit.trace(program, (inputs, lengths)),
    ):
        found = made(inputs, torch.tensor([-7, 99, 4]).to(path.device))
        torch.testing.assert_close(found, expected)
    variants.assert_lengths_of_a_program(
        layer, *moved(path, random_tensor(4, 2, CHANNELS), random_state(layer))
    )
