"""The public function on sequences of one padded length, [B, H, N, D]; ``varlen`` holds the one on packed sequences."""

from typing import Unpack, overload

from torch import Tensor

from . import dispatch, validation
from .auxiliary import AuxOutput, AuxRequest
from .options import Lengths, Options, complete, spelled_out


@overload
def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_lengths: Tensor | None = ...,
    return_aux: None = ...,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_lengths: Tensor | None = ...,
    return_aux: AuxRequest,
    **options: Unpack[Options],
) -> tuple[Tensor, AuxOutput]: ...
@spelled_out
def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_lengths: Tensor | None = None,
    return_aux: AuxRequest | None = None,
    **options: Unpack[Options],
) -> Tensor | tuple[Tensor, AuxOutput]:
    """Compute sigmoid attention, out = sigmoid(scale·q kᵀ + b) v over each row's valid keys.

    Args:
        query: [B, H, N_q, D], any strides with the last dimension contiguous.
        key: [B, H_k, N_k, D]; H_k is H, or divides it with ``enable_gqa``.
        value: like ``key``.
        bias: added to every logit: None for −log of the most keys that a row may see (N_k, each sequence's own number
            with ``key_lengths``, no more than the window holds), a number, or a tensor [H] that receives its gradient.
            A model that sees several lengths should pass -log of its longest training length.
        scale: factor of q·k; 1/√D by default.
        is_causal: query i sees keys j <= i' = i + N_k - N_q: the sequences end together, the last query sees every key,
            and a query without a key gives 0.
        window: how far a query sees: keys i' - window < j <= i' if causal, |i' - j| < window if not. At least 1.
        alibi_slopes: [H], subtracts slope·|i' - j| from the logit; receives no gradient.
        key_lengths: [B] integers, only keys j < key_lengths[b] are valid: padding on the right, of keys. Positions
            stay those of the padded tensors. A length above N_k counts as N_k, one of 0 makes the sequence's output 0.
            What the padding holds must be finite.
        enable_gqa: allow fewer key heads than query heads; consecutive query heads share one.
        deterministic: whether the gradients are to be the same bits in every run; None follows
            ``torch.use_deterministic_algorithms``. eager and triton always are, on one device and version; hopper
            takes a slower way to the query's gradient.
        return_aux: also return the statistics it asks for. The output's bits do not depend on it.
        backend: "eager" (plain PyTorch, any device and float type), "triton" (CUDA capability 8.0 and newer, float16,
            bfloat16, float32, head dims 16 to 256 in multiples of 8), "split_keys" (as triton, its forward for grids
            that do not fill the device, such as decoding; gradients as by auto), "hopper" (CUDA capability 9.0, what
            ``hopper/requirements.py`` lets through), or "auto": the fastest of these by ``triton/splitting.py``, else
            eager.
        form: how a fused forward computes sigmoid: "accurate", "tanh" (one special-function operation, loses small
            weights), or "auto": tanh only where type and bias keep its error within the bound under Numerics. Which one
            was taken is in ``AuxOutput.form``.

    Returns:
        The output [B, H, N_q, D] in the inputs' type, or with ``return_aux`` a pair of it and an ``AuxOutput``.

    Raises:
        TypeError, ValueError: the arguments do not fit together; the message says which and how.
        RuntimeError: the machine cannot run the backend that was asked for.

    Numerics: products are accumulated in float32 (float64 for float64). The other backends round the weights to the
    inputs' type for the second product, as every fused attention does, and aim at an error against float64 within 1.5
    times that rounding. Under autocast q, k and v are cast and a float32 bias stays float32. README.md holds the
    derivation and the figures.

    References: Theory, Analysis, and Best Practices for Sigmoid Self-Attention, arXiv 2409.04431.
    """
    validation.check_tensors(query, key, value)
    output, aux = dispatch.attend(query, key, value, complete(options), Lengths(key_lengths), return_aux)
    return output if aux is None else (output, aux)
