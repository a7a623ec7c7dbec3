"""Small texts to predict, and runs on them."""

import random
from pathlib import Path

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "that", "the", "rat", "ran"]

# Four epochs of six steps; the streams begin anew after 18
TINY = (
    "scale=smoke",
    "task=text_file",
    "task.text=null",
    "model=tlstm_2d",
    "model.channels=4",
    "model.depth=3",
    "task.timesteps=5",
    "training.batch_size=4",
    "training.samples_per_epoch=24",
    "training.max_samples=96",
    "task.evaluation_streams=2",
    "task.context=3",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "logger=csv",
)


def words(length: int) -> bytes:
    """Words in random order, cut to a number of characters."""
    chosen = random.Random(0).choices(WORDS, k=length)
    return " ".join(chosen)[:length].encode()


def write_text(directory: Path, length: int = 400) -> Path:
    """A file of words."""
    file = directory / "text"
    file.write_bytes(words(length))
    return file
