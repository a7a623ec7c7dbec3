"""The record of a measurement: one case computed by one competitor, and how it is written.

Times are microseconds per timestep of the whole batch where a name says microseconds, and
seconds where it says seconds.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tlstm.records.schema import (
    Count,
    Hardware,
    Name,
    Seconds,
    Size,
)
from tlstm.utils import (
    replace_file,
)

Suite = Literal["targets", "tasks", "size", "step"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Implementation = Literal["triton", "pytorch", "autograd", "torch.compile", "nn.LSTM", "nn.LSTMCell"]
Microseconds = Annotated[float, Field(gt=0)]

SUITES: tuple[Suite, ...] = ("targets", "tasks", "size", "step")
IMPLEMENTATIONS: tuple[Implementation, ...] = (
    "triton",
    "pytorch",
    "autograd",
    "torch.compile",
    "nn.LSTM",
    "nn.LSTMCell",
)
OURS: tuple[Implementation, ...] = ("triton", "pytorch")
STACKS: tuple[Implementation, ...] = ("nn.LSTM", "nn.LSTMCell")
DIGITS = 5  # of a time that is recorded


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Target(_Frozen):
    """What forward and backward should take on one NVIDIA H200.

    Attributes:
        must: microseconds per timestep, at most.
        aim: microseconds per timestep, what to hope for.
    """

    must: Microseconds
    aim: Microseconds


class Case(_Frozen):
    """What is computed.

    Attributes:
        suite: what it is measured for.
        task: whose sizes they are: "addition".
        model: the configuration's name: "tlstm_3d_cn".
        label: the paper's name: "3D tLSTM+CN".
        depth: L.
        channels: M.
        tensor_size: P; 1 for a stack.
        rank: D; 1 for a stack.
        kernel_size: K; 0 for a stack.
        memory_convolution: whether the memory cell is convolved.
        normalization: CN, LN or none.
        input_size: features of the input.
        batch_size: B.
        timesteps: T; exactly so many are computed.
        target: None where there is none.
    """

    suite: Suite
    task: Name
    model: Name
    label: str
    depth: Size
    channels: Size
    tensor_size: Size
    rank: Size
    kernel_size: Count
    memory_convolution: bool
    normalization: Literal["channel", "layer"] | None
    input_size: Size
    batch_size: Size
    timesteps: Size
    target: Target | None = None

    @property
    def name(self) -> str:
        """What sets it apart within its suite."""
        return f"{self.task}-{self.model}-L{self.depth}-M{self.channels}"

    @property
    def is_stack(self) -> bool:
        """Whether it is a stack of layers, which only PyTorch's own modules compute."""
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


class Competitor(_Frozen):
    """Who computes it and how.

    Attributes:
        implementation: "triton" and "pytorch" are the layer's fast paths; "autograd" is the
            equations step by step under autograd; "torch.compile" the same with the step
            compiled; "nn.LSTM" and "nn.LSTMCell" are stacks of L layers of M channels.
        precision: of matrix products; "tf32" is float32 with TF32 products. bfloat16 is
            autocast for the layers, and the weights' own type for nn.LSTM, as is float16.
        captured: whether it is replayed from a CUDA graph.
    """

    implementation: Implementation
    precision: Precision
    captured: bool

    @property
    def name(self) -> str:
        """For people: "triton, bfloat16, graph"."""
        return f"{self.implementation}, {self.precision}" + (", graph" if self.captured else "")

    @property
    def is_ours(self) -> bool:
        """Whether it is a fast path of the layer."""
        return self.implementation in OURS


class Timing(_Frozen):
    """Repeated measurements of the same thing, in the order in which they were made.

    Attributes:
        microseconds: per timestep, one number for each repetition.
        median: of them.
        low: their lower quartile.
        high: their upper quartile.
        repeats: how many.
    """

    microseconds: list[Microseconds]
    median: Microseconds
    low: Microseconds
    high: Microseconds
    repeats: Size

    @classmethod
    def of(cls, seconds: Sequence[float], timesteps: int) -> "Timing":
        """From the seconds that each pass over so many timesteps took."""
        each = [_rounded(1e6 * value / timesteps) for value in seconds]
        low, high = each[0], each[0]
        if len(each) > 1:
            low, _, high = quantiles(each, n=4, method="inclusive")
        return cls(
            microseconds=each,
            median=_rounded(median(each)),
            low=_rounded(low),
            high=_rounded(high),
            repeats=len(each),
        )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


class Pass(_Frozen):
    """What one kind of pass takes.

    Attributes:
        timing: None where the pass failed.
        peak_memory: bytes at its peak, beside weights and input.
        kernels: GPU kernels per timestep; None where they were not counted.
        first_call_seconds: the first call, in which kernels are compiled.
        capture_seconds: the capture of its CUDA graph.
    """

    timing: Timing | None = None
    peak_memory: Count | None = None
    kernels: Annotated[float, Field(ge=0)] | None = None
    first_call_seconds: Seconds | None = None
    capture_seconds: Seconds | None = None


class Errors(_Frozen):
    """Relative root mean square errors against the equations in float64, over all draws together.

    Attributes:
        timesteps: of a sequence that they were measured on; all draws have as many.
        output: of the output.
        gradient: of the gradient that is worst.
        worst: the name of its parameter.
    """

    timesteps: Size
    output: Annotated[float, Field(ge=0)]
    gradient: Annotated[float, Field(ge=0)]
    worst: str


class Floor(_Frozen):
    """What the arithmetic alone takes, measured in the same run.

    Attributes:
        operations: floating-point operations of a forward pass, per timestep; forward and
            backward take three times as many.
        rate: operations per second of a large matrix product.
        rate_precision: of that product: bfloat16 on a GPU.
        products: the case's three matrix products alone, back to back, microseconds per
            timestep; None where they were not measured.
        aligned: whether their sizes were rounded up to multiples of eight. The library takes
            several times as long where they were not, which is then no floor to be shown.
    """

    operations: Size
    rate: Annotated[float, Field(gt=0)]
    rate_precision: Precision
    products: Microseconds | None
    aligned: bool = False

    @property
    def least_products(self) -> float | None:
        """The matrix products alone, as fast as the library computes them; None if unknown."""
        return self.products if self.aligned else None

    @property
    def forward(self) -> float:
        """Microseconds per timestep of a forward pass."""
        return 1e6 * self.operations / self.rate

    @property
    def training(self) -> float:
        """Microseconds per timestep of forward and backward."""
        return 3 * self.forward


class Measurement(_Frozen):
    """One case by one competitor.

    Attributes:
        format: version of this schema.
        run: when the run began that measured it; its measurements can be compared.
        quick: whether sequences were short and large cases left out.
        case: what was computed.
        competitor: who computed it.
        forward: without gradients.
        training: forward and backward, gradients of all weights; None for single steps.
        errors: None where they were not measured.
        floor: of the case.
        failure: why something is missing, one sentence.
        measured: with its time zone.
        commit: of the code, None outside of a repository.
        modified: whether the code had changes that no commit holds.
        versions: of the packages that matter.
        hardware: what it ran on.
    """

    format: Literal[1] = 1
    run: AwareDatetime
    quick: bool
    case: Case
    competitor: Competitor
    forward: Pass
    training: Pass | None
    errors: Errors | None
    floor: Floor
    failure: str | None
    measured: AwareDatetime
    commit: str | None
    modified: bool
    versions: dict[str, str]
    hardware: Hardware

    @property
    def on_gpu(self) -> bool:
        """Whether it ran on a GPU, where the floor is that of bfloat16."""
        return self.floor.rate_precision == "bfloat16"

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
    def least(self) -> float:
        """The floor of the pass that counts, microseconds per timestep."""
        return self.floor.forward if self.training is None else self.floor.training

    @property
    def of_floor(self) -> float | None:
        """The floor as a fraction of the pass that counts: 1 were perfect.

        None for a stack of layers beside a tensor, whose arithmetic is another.
        """
        another = self.competitor.implementation in STACKS and not self.case.is_stack
        return None if another or not self.microseconds else self.least / self.microseconds

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two records the same."""
        where = self.hardware.device, self.quick
        return self.run, *where, self.case.suite, self.case.name, self.competitor.name


def write(measurements: Iterable[Measurement], path: Path) -> None:
    """Writes measurements, one line each, whole or not at all.

    Raises:
        OSError: the file could not be written; the message names it.
    """
    replace_file(path, "".join(f"{each.model_dump_json()}\n" for each in measurements).encode())


def read(path: Path) -> list[Measurement]:
    """Reads such a file.

    Raises:
        OSError: the file could not be read.
        ValueError: a line is not a valid measurement; the message names file and line.
    """
    lines = enumerate(path.read_bytes().split(b"\n"), 1)
    return [_parse(line, f"line {number} of {path}") for number, line in lines if line.strip()]


def _parse(line: bytes, place: str) -> Measurement:
    try:
        return Measurement.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place} is not a valid measurement: {field}: {first['msg']}") from error
