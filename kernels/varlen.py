"""The public function on packed sequences of several lengths, [T, H, D], one after the other without padding."""

from typing import Unpack, overload

from torch import Tensor

from . import dispatch, validation
from .auxiliary import AuxOutput, AuxRequest
from .options import Options, Packed, complete, plain, spelled_out


@overload
def sigmoid_attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    return_aux: None = ...,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def sigmoid_attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    return_aux: AuxRequest,
    **options: Unpack[Options],
) -> tuple[Tensor, AuxOutput]: ...
@spelled_out(packed=True)
def sigmoid_attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    return_aux: AuxRequest | None = None,
    **options: Unpack[Options],
) -> Tensor | tuple[Tensor, AuxOutput]:
    """Compute sigmoid attention within each of B packed sequences, as ``sigmoid_attention`` would on each alone.

    Args:
        query: [T_q, H, D], the sequences one after the other, the last dimension contiguous.
        key: [T_k, H_k, D].
        value: like ``key``.
        cu_seqlens_q: [B + 1] int32 or int64, where each sequence of ``query`` begins, never falling; the last is where
            the last sequence ends. What is before the first or after the last gives 0 and receives the gradient 0.
        cu_seqlens_k: the same of ``key``; a sequence without keys gives 0.
        max_seqlen_q: queries of the longest sequence. The tensors' values are not read, since that would wait for the
            device: rows beyond a number that is too small are not computed.
        max_seqlen_k: keys of the longest sequence.
        options: see ``options.py``, which holds type, default and documentation of each.
        return_aux: also return the statistics it asks for, [B, H, 9], rows sampled from each sequence.

    Returns:
        The output [T_q, H, D] in the inputs' type, or with ``return_aux`` a pair of it and an ``AuxOutput``.

    Raises:
        TypeError, ValueError: the arguments do not fit together; the message says which and how.
        RuntimeError: the machine cannot run the backend that was asked for.
    """
    validation.check_tensors(query, key, value, "[T, H, D]")
    validation.check_packed(query, key, value)
    max_seqlen_q, max_seqlen_k = plain(max_seqlen_q), plain(max_seqlen_k)
    validation.check_starts(query, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    packed = Packed(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    output, aux = dispatch.attend(query, key, value, complete(options, packed=True), packed, return_aux)
    output = output[0].transpose(0, 1)
    return output if aux is None else (output, aux)
