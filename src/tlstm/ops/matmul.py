"""Matrix products, by the fastest library for their operands, summed in float32 or better.

Dimension letters of this file:
    R, C    rows and columns of the product
    N       the summed axis
"""

import torch
from torch import Tensor

# Multiply-adds from which oneDNN's faster product outweighs its slower call
ONEDNN_ARITHMETIC = 2**20

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(left: Tensor, right: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return left [R, N] · right [N, C] + bias [C], in the operands' type or a wider one."""
    if _suits_onednn(left, right, dtype):
        return _onednn(left, right, bias)
    if left.dtype == dtype:
        return torch.mm(left, right) if bias is None else torch.addmm(bias, left, right)
    mixed = _mixed(left, right, dtype)
    return mixed if bias is None else mixed.add_(bias)


def multiply(left: Tensor, right: Tensor, bias: Tensor, out: Tensor) -> None:
    """Write left [R, N] · right [N, C] + bias [C] into `out` [.., C], R being its leading axes."""
    if (
        left.dtype == out.dtype
        and out.is_contiguous()
        and not _suits_onednn(left, right, out.dtype)
    ):
        torch.addmm(bias, left, right, out=out.view(-1, out.shape[-1]))
    else:
        out.copy_(product(left, right, bias, out.dtype).view(out.shape))


def accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left [R, N] · right [N, C] to the total [R, C]."""
    if _suits_onednn(left, right, total.dtype):
        total.add_(_onednn(left, right, None))
    elif left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(_mixed(left, right, total.dtype))


def _suits_onednn(left: Tensor, right: Tensor, dtype: torch.dtype) -> bool:
    """Return True for products that oneDNN computes fastest: large ones in float32 on a CPU.

    PyTorch gives these to its BLAS. That is mostly MKL, which uses AVX-512 on Intel's processors
    only; oneDNN, a part of PyTorch too, uses it on every processor that has it.
    """
    return (
        HAS_ONEDNN
        and left.device.type == "cpu"
        and left.dtype == dtype == torch.float32
        and left.shape[0] * left.shape[1] * right.shape[1] >= ONEDNN_ARITHMETIC
    )


def _onednn(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """Return left · right + bias, by the operator to which torch.compile lowers a linear layer.

    A right factor with gaps between its rows makes it a thousand times slower.
    """
    if not right.T.is_contiguous():
        right = right.contiguous()
    computed: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, bias, "none", [], "")
    return computed


def _mixed(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Return left · right in a wider type than the operands'."""
    return torch.mm(left, right, out_dtype=dtype) if left.is_cuda else (left @ right).to(dtype)
