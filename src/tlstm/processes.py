"""Which of a run's processes this is: with several devices there is one for each."""

from lightning.pytorch.utilities import rank_zero_only


def is_first_process() -> bool:
    """Whether this process is the first device's, which alone prints and writes files."""
    return getattr(rank_zero_only, "rank", 0) == 0
