"""The kernels for NVIDIA GPUs, computed on the CPU by Triton's interpreter.

Triton decides when it is imported whether it interprets, so that all of this runs in a process of
its own.
"""

import os
import subprocess
import sys
from pathlib import Path as FolderPath
from typing import Any

import pytest
import torch
from torch import Tensor

import variants
from oracle import Options
from paths import (
    FORMS,
    Path,
    assert_agreement,
    assert_layouts_do_not_matter,
    column,
    expanded,
    moved,
    narrowed,
    pair,
    rounded,
    transposed,
)
from variants import LENGTHS, Result, assert_near, outcome, random_inputs, random_state

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("poisoned_memory")

VARIABLE = "TRITON_INTERPRET"
KERNELS = Path("triton", "cpu", torch.float32, 1e-5)
SMALL = [
    (Options(2, 3, 3, gated=False), "whole"),
    (Options(3, 2, 2, gated=False), "stream, lengths"),
    (Options(2, 1, 3), "stream, lengths"),
    (Options(2, 3, 4, normalization="layer"), "whole"),
    (Options(2, 4, 3, memory_convolution=False, normalization="channel"), "whole, lengths"),
    (Options(3, 2, 3, normalization="channel"), "whole, lengths"),
    (Options(3, 2, 2, memory_convolution=False), "whole"),
    (Options(3, 2, 2, normalization="layer"), "stream"),
]
# The interpreter cuts a bfloat16's digits off where a GPU rounds: twice the error, to one side
LARGEST_ERROR = {torch.float16: 2e-3, torch.bfloat16: 4e-2}

interpreted = pytest.mark.skipif(
    os.environ.get(VARIABLE) != "1", reason="runs in the process of test_in_the_interpreter"
)


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get(VARIABLE) == "1", reason="is the interpreter's process")
def test_in_the_interpreter() -> None:
    done = subprocess.run(
        [
            sys.executable,
            *["-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-q"],
            __file__,
        ],
        env={**os.environ, VARIABLE: "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.slow
def test_they_compile_for_a_gpu_that_is_not_there() -> None:
    script = FolderPath(__file__).with_name("compile_kernels.py")
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels = [
        "init_bwd_kernel",
        "init_fwd_kernel",
        "matmul_kernel",
        "memory_conv_bwd_kernel",
        "pack_kernel",
        "step_bwd_kernel",
        "step_fwd_kernel",
        "unpack_kernel",
    ]
    compiled, launched_again = done.stdout.splitlines()
    assert compiled.split() == kernels
    assert launched_again.split() == [
        "matmul_kernel",
        "memory_conv_bwd_kernel",
        "step_bwd_kernel",
        "step_fwd_kernel",
    ]


@interpreted
@pytest.mark.parametrize(
    ("options", "form"), SMALL, ids=[f"{variants.variant_id(it)}-{form}" for it, form in SMALL]
)
def test_equals_the_cell(options: Options, form: str) -> None:
    assert_agreement(KERNELS, options, FORMS[form], random_inputs(batch_size=len(LENGTHS)))


@interpreted
@pytest.mark.parametrize("dtype", LARGEST_ERROR, ids=["float16", "bfloat16"])
@pytest.mark.parametrize(
    "options",
    [SMALL[0][0], Options(2, 3, 3, normalization="channel"), SMALL[-2][0]],
    ids=variants.variant_id,
)
def test_low_precision_equals_the_cell(options: Options, dtype: torch.dtype) -> None:
    layer, reference = pair(KERNELS, options, channels=8)
    inputs, state = random_inputs(), random_state(reference)

    def under_autocast(module: Any, inputs: Tensor, state: Any) -> Result:
        with torch.autocast("cpu", dtype):
            return module(inputs, state)

    actual = outcome(layer, under_autocast, *moved(KERNELS, inputs, state))
    expected = outcome(reference, variants.whole, *rounded(KERNELS, inputs, state))
    assert_near(actual, expected, LARGEST_ERROR[dtype])


@interpreted
def test_more_channels_than_a_tile() -> None:
    options = Options(2, 2, 3, normalization="channel")
    layer, reference = pair(KERNELS, options, channels=70)
    inputs, state = random_inputs(2, 5), random_state(reference, 5)
    actual = outcome(layer, variants.whole, *moved(KERNELS, inputs, state))
    expected = outcome(reference, variants.whole, *rounded(KERNELS, inputs, state))
    assert_near(actual, expected, KERNELS.tolerance)


@interpreted
@pytest.mark.parametrize("normalization", [None, "channel", "layer"])
def test_the_memory_convolutions_gradients_for_themselves(
    normalization: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlstm.ops.triton.options.MANY_EXAMPLES", 1)
    monkeypatch.setattr("tlstm.ops.triton.options.MANY_CHANNELS", 1)
    options = Options(3, 3, 3, normalization=normalization)
    assert_agreement(
        KERNELS, options, FORMS["whole, lengths"], random_inputs(batch_size=len(LENGTHS))
    )


@interpreted
def test_the_weights_gradient_is_summed_over_parts_of_the_sequence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tlstm.ops.triton.backward.GRADIENT_NUMBERS", 600)  # two of five timesteps
    assert_agreement(KERNELS, Options(2, 2, 3), FORMS["whole"], random_inputs(batch_size=3))


@interpreted
@pytest.mark.parametrize("layouts", [[column, expanded], [expanded, narrowed, transposed]])
def test_layouts_do_not_matter(layouts: list[Any]) -> None:
    options = Options(2, 2, 3, normalization="channel")
    assert_layouts_do_not_matter(KERNELS, options, layouts, torch.uint8)


@interpreted
def test_no_examples_and_lengths_that_no_timestep_has() -> None:
    layer, _ = pair(KERNELS, Options(2, 2, 3))
    variants.assert_no_examples(layer)
    _, state = moved(KERNELS, random_inputs(), random_state(layer))
    variants.assert_lengths_of_a_program(layer, torch.zeros(4, 2, 3), state)
