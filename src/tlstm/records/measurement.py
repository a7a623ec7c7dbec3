"""The record of a measurement: one case computed by one competitor; its files and its store.

`python -m tlstm.bench` writes files `runs/runtime/<time>.jsonl`; `python -m tlstm.results collect`
adds their lines to `results/runtime/records.jsonl`, whose lines are only ever added. Times are
microseconds per timestep of the whole batch where a name says microseconds, else seconds.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from tlstm.records.lines import add_lines, read_lines, read_store
from tlstm.records.schema import (
    MOST,
    Count,
    Frozen,
    Hardware,
    Label,
    Name,
    Seconds,
    Size,
    Time,
    parse,
)
from tlstm.utils import replace_file

Suite = Literal["targets", "tasks", "size", "step"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Implementation = Literal["triton", "pytorch", "autograd", "torch.compile", "nn.LSTM", "nn.LSTMCell"]
Microseconds = Annotated[float, Field(gt=0, le=MOST)]

EXPERIMENT = "runtime"
SUITES: tuple[Suite, ...] = get_args(Suite)
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)
OURS: tuple[Implementation, ...] = ("triton", "pytorch")
STACKS: tuple[Implementation, ...] = ("nn.LSTM", "nn.LSTMCell")
UNKNOWN = "—"
DIGITS = 5  # of a time that is recorded


class Target(Frozen):
    """The time of forward and backward on one NVIDIA H200 at most, and better still."""

    required: Microseconds
    goal: Microseconds


class Case(Frozen):
    """A computation at the sizes of a task.

    L is `depth`, M `channels`, P `tensor_size`, D `rank`, K `kernel_size`, B `batch_size` and T
    `timesteps`. A stack of layers has P = 1, D = 1 and K = 0. `label` is the paper's name.
    """

    suite: Suite
    task: Name
    model: Name
    label: Label
    depth: Size
    channels: Size
    tensor_size: Size
    rank: Annotated[Size, Field(le=8)]
    kernel_size: Annotated[Count, Field(le=1000)]
    memory_convolution: bool
    normalization: Literal["channel", "layer"] | None
    input_size: Size
    batch_size: Size
    timesteps: Size
    target: Target | None = None

    @property
    def name(self) -> str:
        """The name within its suite."""
        return f"{self.task}-{self.model}-L{self.depth}-M{self.channels}"

    @property
    def is_stack(self) -> bool:
        """True for a stack of layers, which only PyTorch's own modules compute."""
        return self.rank == 1

    @property
    def product(self) -> tuple[int, int, int]:
        """Rows, inner size and columns of the matrix product of one timestep, all taps."""
        if self.is_stack:
            return self.batch_size * self.depth, 2 * self.channels, 4 * self.channels
        axes = self.rank - 1
        taps = self.kernel_size**axes
        logits = taps if self.memory_convolution else 0
        rows = self.batch_size * self.tensor_size**axes
        return rows, self.channels * taps, 4 * self.channels + logits

    @property
    def operations(self) -> int:
        """Floating-point operations of the forward pass of one timestep; backward takes twice."""
        rows, inner, columns = self.product
        return 2 * rows * inner * columns


class Competitor(Frozen):
    """An implementation with the precision of its matrix products, replayed from a graph or not.

    "triton" and "pytorch" are the layer's fast paths, "autograd" the equations step by step under
    autograd, "torch.compile" the same with the step compiled, "nn.LSTM" and "nn.LSTMCell" stacks of
    L layers of M channels. "tf32" is float32 with TF32 products; bfloat16 is autocast for the
    layers, and the weights' own type for nn.LSTM, as is float16.
    """

    implementation: Implementation
    precision: Precision
    cuda_graph: bool

    @property
    def name(self) -> str:
        """For people: "triton, bfloat16, graph"."""
        return f"{self.implementation}, {self.precision}" + (", graph" if self.cuda_graph else "")


class Timing(Frozen):
    """Microseconds per timestep of repeated measurements, in the order in which they were made."""

    microseconds: Annotated[list[Microseconds], Field(min_length=1)]

    @classmethod
    def of(cls, seconds: Sequence[float], timesteps: int) -> "Timing":
        """Return the timing of passes over T timesteps that took these seconds."""
        return cls(microseconds=[_rounded(1e6 * value / timesteps) for value in seconds])

    @property
    def repeats(self) -> int:
        """Number of repetitions."""
        return len(self.microseconds)

    @property
    def median(self) -> float:
        """The median of all repetitions."""
        return _rounded(median(self.microseconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile."""
        if self.repeats == 1:
            return self.median, self.median
        low, _, high = quantiles(self.microseconds, n=4, method="inclusive")
        return _rounded(low), _rounded(high)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


class Pass(Frozen):
    """The cost of one kind of pass; None for what failed or was not measured.

    Attributes:
        timing: of repeated passes.
        peak_memory: bytes at its peak, without weights and input.
        kernels: GPU kernels per timestep.
        first_call_seconds: the first call, in which kernels are compiled.
        capture_seconds: the capture of its CUDA graph.
    """

    timing: Timing | None = None
    peak_memory: Count | None = None
    kernels: Annotated[float, Field(ge=0)] | None = None
    first_call_seconds: Seconds | None = None
    capture_seconds: Seconds | None = None


class Errors(Frozen):
    """Relative root mean square errors against the equations in float64, over all draws together.

    Of the output, and of the gradient that is worst, with its parameter's name; T of every draw.
    """

    timesteps: Size
    output: Annotated[float, Field(ge=0)]
    gradient: Annotated[float, Field(ge=0)]
    worst: str


class Roofline(Frozen):
    """The time of the arithmetic alone, measured in the same run.

    Attributes:
        operations: floating-point operations of a forward pass, per timestep; forward and
            backward take three times as many.
        rate: operations per second of a large matrix product.
        rate_precision: of that product: bfloat16 on a GPU.
        products: the case's three matrix products alone, back to back, their sizes rounded up
            to multiples of eight, microseconds per timestep; None where they were not measured.
    """

    operations: Size
    rate: Annotated[float, Field(ge=1, le=1e30)]
    rate_precision: Precision
    products: Microseconds | None

    @property
    def forward(self) -> float:
        """Microseconds per timestep of a forward pass."""
        return 1e6 * self.operations / self.rate

    @property
    def training(self) -> float:
        """Microseconds per timestep of forward and backward."""
        return 3 * self.forward


def _of_this_version(number: object) -> object:
    if number != 2:
        raise PydanticCustomError(
            "format",
            "of another version, not in format 2: measure again with python -m tlstm.bench",
        )
    return number


class Measurement(Frozen):
    """One case by one competitor; measurements of one run can be compared.

    Attributes:
        format: version of this schema.
        run: the time its run began.
        quick: whether sequences were short and large cases left out.
        forward: without gradients.
        training: forward and backward, gradients of all weights; None for single steps.
        failure: why something is missing, one sentence.
        commit: of the code, None outside of a repository.
        modified: whether the code had changes that no commit holds.
        versions: of the packages that matter.
    """

    format: Annotated[Literal[2], BeforeValidator(_of_this_version)] = 2
    run: Time
    quick: bool
    case: Case
    competitor: Competitor
    forward: Pass
    training: Pass | None
    errors: Errors | None
    roofline: Roofline
    failure: str | None
    measured: Time
    commit: str | None
    modified: bool
    versions: dict[str, str]
    hardware: Hardware

    @property
    def on_gpu(self) -> bool:
        """True on a GPU, where the roofline is that of bfloat16."""
        return self.roofline.rate_precision == "bfloat16"

    @property
    def main(self) -> Pass:
        """The pass that counts: forward and backward, or a single step."""
        return self.forward if self.training is None else self.training

    @property
    def microseconds(self) -> float | None:
        """Median of the pass that counts, per timestep."""
        return None if self.main.timing is None else self.main.timing.median

    @property
    def tokens_per_second(self) -> float | None:
        """Timesteps of single examples that the pass that counts reads in a second."""
        each = self.microseconds
        return None if each is None else 1e6 * self.case.batch_size / each

    @property
    def roofline_microseconds(self) -> float:
        """The roofline of the pass that counts, per timestep."""
        return self.roofline.forward if self.training is None else self.roofline.training

    @property
    def roofline_share(self) -> float | None:
        """The roofline as a fraction of the time of the pass that counts, 1 at best.

        None for a stack of layers measured for a tensor's case, since its arithmetic differs.
        """
        differs = self.competitor.implementation in STACKS and not self.case.is_stack
        if differs or not self.microseconds:
            return None
        return self.roofline_microseconds / self.microseconds

    @property
    def key(self) -> tuple[object, ...]:
        """The identity of a record: equal keys are the same measurement."""
        where = self.hardware.device, self.quick
        return self.run, *where, self.case.suite, self.case.name, self.competitor.name


parse_measurement = partial(parse, Measurement, name="measurement")  # of a line and its place


def format_microseconds(value: float | None) -> str:
    """Return a time to four digits without an exponent, a dash for None."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def write(measurements: Iterable[Measurement], path: Path) -> None:
    """Write measurements, one line each, all of them or none.

    Raises:
        OSError: the file could not be written; the message names it.
    """
    replace_file(path, "".join(f"{each.model_dump_json()}\n" for each in measurements).encode())


def read(path: Path) -> list[Measurement]:
    """Read a file of measurements.

    Raises:
        OSError: the file could not be read.
        ValueError: a line is not a valid measurement; the message names file and line.
    """
    return read_lines(path, parse_measurement)


def load(results_dir: Path) -> list[Measurement]:
    """Return the committed measurements in the order in which they were added; [] if none.

    Raises:
        OSError, ValueError: as `read`.
    """
    return read_store(results_dir / EXPERIMENT / "records.jsonl", parse_measurement)


def append(measurements: Iterable[Measurement], results_dir: Path) -> int:
    """Add measurements to the store, without those already there; return how many were new.

    Raises:
        OSError: the store could not be locked or written.
        ValueError: a line of the store is not a valid measurement; nothing is written.
    """
    path = results_dir / EXPERIMENT / "records.jsonl"

    def new(there: list[Measurement]) -> list[Measurement]:
        known = {each.key for each in there}
        return list({each.key: each for each in measurements if each.key not in known}.values())

    return add_lines(path, parse_measurement, new)


def latest(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the measurements of the last run of every case, machine and scale.

    Sequences of another length are another case.
    """

    def place(each: Measurement) -> tuple[object, ...]:
        case = each.case
        return each.hardware.device, each.quick, case.suite, case.name, case.timesteps

    last = {place(each): each.run for each in sorted(measurements, key=lambda m: m.run)}
    return [each for each in measurements if each.run == last[place(each)]]
