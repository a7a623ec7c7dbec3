"""How long the benchmark is going to take, before it starts."""

from tlstm.bench.rounds import kinds
from tlstm.records.measurement import Case, Competitor, Implementation

# Seconds to build, compile and capture, and microseconds per timestep that launches alone take,
# forward and backward: rough, on one NVIDIA H200 and on two processor cores
PREPARATION: dict[Implementation, float] = {
    "triton": 2.5,
    "pytorch": 0.6,
    "autograd": 0.6,
    "torch.compile": 10,
    "nn.LSTM": 0.3,
    "nn.LSTMCell": 0.3,
}
LAUNCHES: dict[Implementation, float] = {
    "triton": 40,
    "pytorch": 400,
    "autograd": 2000,
    "torch.compile": 600,
    "nn.LSTM": 60,
    "nn.LSTMCell": 200,
}
CAPTURED = 0.3  # of the time that launches take without a CUDA graph
EFFICIENCY = 0.4  # of the rate of a large matrix product
CALLS = 4  # of every pass, beside those that are timed
TURNS = 5  # rounds, each with a pass that is not timed


def expected_seconds(
    case: Case, competitors: list[Competitor], rate: float, seconds: float, on_gpu: bool
) -> float:
    """Seconds to measure a case, roughly.

    Args:
        case: what is computed.
        competitors: by whom.
        rate: operations per second of a large matrix product.
        seconds: of timing for every number.
        on_gpu: whether anything is compiled and captured.
    """
    return sum(_one(case, each, rate, seconds, on_gpu) for each in competitors)


def _one(case: Case, competitor: Competitor, rate: float, seconds: float, on_gpu: bool) -> float:
    arithmetic = 3 * case.operations / (rate * EFFICIENCY)
    launches = 1e-6 * LAUNCHES[competitor.implementation]
    called = case.timesteps * max(arithmetic, launches)
    timed = case.timesteps * max(arithmetic, launches * (CAPTURED if competitor.captured else 1))
    preparation = PREPARATION[competitor.implementation] if on_gpu else 0.1
    passes = CALLS * called + TURNS * timed + max(0.7 * seconds, 3 * timed)
    return preparation + (passes if len(kinds(case)) == 1 else 1.4 * passes)
