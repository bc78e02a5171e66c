"""The public function on sequences of one padded length, [B, H, N, D]; ``varlen`` holds the one on packed sequences."""

from typing import Unpack, overload

from torch import Tensor

from . import dispatch, validation
from .auxiliary import AuxOutput, AuxRequest
from .options import Options, Packed, complete, spelled_out


@overload
def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    return_aux: None = ...,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    return_aux: AuxRequest,
    **options: Unpack[Options],
) -> tuple[Tensor, AuxOutput]: ...
@spelled_out(packed=False)
def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    return_aux: AuxRequest | None = None,
    **options: Unpack[Options],
) -> Tensor | tuple[Tensor, AuxOutput]:
    """Compute sigmoid attention, out = sigmoid(scale·q kᵀ + b) v over each row's valid keys.

    Args:
        query: [B, H, N_q, D], any strides with the last dimension contiguous.
        key: [B, H_k, N_k, D]; H_k is H, or divides it with ``enable_gqa``.
        value: like ``key``.
        options: see ``options.py``, which holds type, default and documentation of each.
        return_aux: also return the statistics it asks for. The output's bits do not depend on it.

    Returns:
        The output [B, H, N_q, D] in the inputs' type, or with ``return_aux`` a pair of it and an ``AuxOutput``.

    Raises:
        TypeError, ValueError: the arguments do not fit together; the message says which and how.
        RuntimeError: the machine cannot run the backend that was asked for.

    Numerics: products are accumulated in float32 (float64 for float64). The other backends round the weights to the
    inputs' type for the second product, as every fused attention does, and aim at an error against float64 within 1.5
    times that rounding. Under autocast q, k and v are cast and a float32 bias stays float32. README.md holds the
    derivation and the figures.

    What a row does not see must be finite all the same, in keys and in values: its weight is 0, and 0 times NaN is NaN,
    as in torch's ``scaled_dot_product_attention``. Which other rows a NaN reaches depends on the backend.

    References: Theory, Analysis, and Best Practices for Sigmoid Self-Attention, arXiv 2409.04431.
    """
    validation.check_tensors(query, key, value)
    output, aux = dispatch.attend(query, key, value, complete(options), Packed(), return_aux)
    return output if aux is None else (output, aux)
