"""Write text with a trained model: python -m tlstm.sample results/weights/text.safetensors.

The model reads a prompt and then, one after another, the characters that it draws itself.
"""

import argparse
import codecs
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import nn

from tlstm.layers.recurrent import RecurrentLayer
from tlstm.ops.device import named_device
from tlstm.training.trained_run import read_run
from tlstm.utils import CommandParser, at_least, interruptions, refusals, run_main

MOST_CHARACTERS = 10**9
PROMPT = "The history of "


class TextModel(NamedTuple):
    """A trained model of characters.

    Attributes:
        core: the recurrent layer.
        head: logits [input_size] of its output [M].
        alphabet: token n is the byte alphabet[n]; further tokens never occur.
    """

    core: RecurrentLayer
    head: nn.Linear
    alphabet: bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = CommandParser(
        prog="python -m tlstm.sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a run's directory, or weights of tlstm.export"
    )
    parser.add_argument("--prompt", default=PROMPT, help=f"what it begins with ({PROMPT!r})")
    parser.add_argument("--characters", type=int, default=500, help="to write (500)")
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="0: the likeliest, 1: as learnt (0.8)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument("--device", help="such as cpu or cuda (a GPU where there is one)")
    parser.add_argument(
        "--data", type=Path, metavar="PLACE", help="the data's directory or file, if elsewhere now"
    )
    chosen = parser.parse_args(arguments)
    with refusals(ValueError, OSError), interruptions("the text ends here"):
        at_least("--characters", chosen.characters, 0)
        if not 0 <= chosen.temperature < float("inf"):
            raise ValueError(f"--temperature must be 0 or above, got {chosen.temperature}")
        if chosen.characters > MOST_CHARACTERS:
            raise ValueError(f"--characters must be at most {MOST_CHARACTERS:,}")
        if not 0 <= chosen.seed < 2**64:
            raise ValueError(f"--seed must be from 0 to 2**64 - 1, got {chosen.seed}")
        device = named_device(chosen.device)
        model = read_model(chosen.model, chosen.data, device)
        check_prompt(chosen.prompt, model.alphabet)
        generator = torch.Generator().manual_seed(chosen.seed)
        began = time.perf_counter()
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        print(chosen.prompt, end="", flush=True)
        written = write(
            model, chosen.prompt.encode(), chosen.characters, chosen.temperature, generator
        )
        for byte in written:
            print(decoder.decode(bytes([byte])), end="", flush=True)
        print(decoder.decode(b"", final=True))
    seconds = time.perf_counter() - began
    print(f"{chosen.characters} characters in {seconds:.1f} s on {device}", file=sys.stderr)
    return 0


def read_model(path: Path, data: Path | None, device: torch.device) -> TextModel:
    """Read a model of characters from a run's directory or a file of weights.

    Raises:
        OSError, ValueError: it cannot be read, or is a model of something else.
    """
    run = read_run(path, data)
    alphabet = run.alphabet or run.data.alphabet
    if alphabet is None:
        raise ValueError(f"{path} was trained on {run.config.task.name}, which is no text")
    network = run.module.network.to(device)
    return TextModel(network.core, network.head, alphabet)


def check_prompt(prompt: str, alphabet: bytes) -> None:
    """Refuse a prompt that the model cannot read.

    Raises:
        ValueError: it is empty or has a character that never occurs in the training text.
    """
    if not prompt:
        raise ValueError("--prompt must have at least one character")
    unknown = [sign for sign in prompt if {*sign.encode()} - {*alphabet}]
    if unknown:
        raise ValueError(f"--prompt has {unknown[0]!r}, which the model has never seen")


@torch.inference_mode()
def write(
    model: TextModel, prompt: bytes, characters: int, temperature: float, generator: torch.Generator
) -> Iterator[int]:
    """Yield the bytes that a model writes after a prompt.

    The output for an input comes `core.delay` timesteps after it. The layer runs those on a copy of
    its state, so that each character may depend on the one before.

    Args:
        model: in evaluation mode.
        prompt: at least one byte, all of them in the alphabet.
        characters: the number of bytes to write.
        temperature: logits are divided by it; 0 takes the likeliest.
        generator: of the draws, on the CPU.
    """
    core, head, alphabet = model
    tokens, state = [alphabet.index(byte) for byte in prompt], None
    for _ in range(characters):
        inputs = torch.tensor(tokens, device=head.weight.device)
        one_hot = F.one_hot(inputs, core.input_size).to(head.weight.dtype)
        output, state = core(one_hot, state)
        logits = head(output[-1])[: len(alphabet)].float().cpu()
        tokens = [draw(logits, temperature, generator)]
        yield alphabet[tokens[0]]


def draw(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    """Draw a token from logits [tokens]."""
    if temperature == 0:
        return int(logits.argmax())
    chances = torch.softmax(logits / temperature, 0)
    return int(torch.multinomial(chances, 1, generator=generator))


if __name__ == "__main__":
    sys.exit(run_main(main))
