"""Statistics of ``nn.MultiheadAttention`` over sampled rows, computed again from its inputs and weights.

q is projected for the sampled rows alone, and keys and values not at all: q·(W_k x) = (W_kᵀ q)·x and
Σ p (W_v x) = W_v Σ p x, so that nothing of the size of a projection is computed twice. Dropout of weights is left out:
no random number is drawn.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stabmon.errors import ModelError
from stabmon.kernels import AuxRequest
from stabmon.kernels.eager.reference import row_columns
from stabmon.kernels.visibility import sampled_rows, shown
from stabmon.stats.measured import spread
from stabmon.stats.slots import Slots
from stabmon.stats.softmax_rows import row_sums
from stabmon.stats.writer import Writer

_ARGUMENTS = tuple(inspect.signature(nn.MultiheadAttention.forward).parameters)[1:]


class Inputs(NamedTuple):
    """One call: query [B, N_q, E], key [B, N_k, E_k], value [B, N_k, E_v], and its masks as they were given."""

    query: Tensor
    key: Tensor
    value: Tensor
    key_padding_mask: Tensor | None
    attn_mask: Tensor | None


class Weights(NamedTuple):
    """Projections per head: query [E, E], key [H, D, E_k], value [H, D, E_v], and their biases or None."""

    query: Tensor
    query_bias: Tensor | None
    key: Tensor
    key_bias: Tensor | None
    value: Tensor
    value_bias: Tensor | None


def is_multihead(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Return whether ``module`` computes what ``nn.MultiheadAttention`` does, not a subclass with its own forward."""
    return type(module).forward is nn.MultiheadAttention.forward


def add_multihead(
    writer: Writer,
    slots: Slots,
    module: nn.MultiheadAttention,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    request: Callable[[int], AuxRequest],
) -> None:
    """Add one call of ``module`` to its site's slots; ``request`` says how many rows to sample for a batch size.

    Raises:
        ModelError: the module adds keys of its own (``add_bias_kv``, ``add_zero_attn``).
    """
    if module.bias_k is not None or module.add_zero_attn:
        raise ModelError("adds keys of its own (add_bias_kv or add_zero_attn), whose rows stabmon cannot read")
    inputs, weights = _inputs(module, args, kwargs), _weights(module)
    batch, queries, _ = inputs.query.shape
    wanted = request(batch)
    rows = sampled_rows(queries, wanted.rows, wanted.offset, inputs.query.device)
    query = _heads(F.linear(inputs.query.index_select(1, rows), weights.query, weights.query_bias), slots.heads)
    key = _project(spread(inputs.key[:, None], wanted)[:, 0], weights.key, weights.key_bias)
    with torch.autocast(inputs.query.device.type, enabled=False):
        statistics, sums = _statistics(inputs, weights, query, rows)
    writer.statistics(slots, statistics, query, key)
    writer.softmax(slots, sums)
    writer.counts(slots, batch, queries * query.size(3), inputs.key.size(1))


def _statistics(inputs: Inputs, weights: Weights, query: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the kernel's statistics [B, H, 9] and ``row_sums`` [H, 2] for the sampled ``query`` [B, H, R, D]."""
    z = _logits(inputs, weights, query)
    mask = _mask(inputs, rows, query.size(1))
    masked = z if mask is None else z + mask
    valid = torch.ones_like(z, dtype=torch.bool) if mask is None else shown(mask).expand_as(z)
    seen = valid.any(-1)
    p = torch.where(seen[..., None], masked.softmax(-1), 0)
    output = torch.einsum("bhrn,bne->bhre", p, inputs.value.to(p.dtype))
    output = torch.einsum("bhre,hde->bhrd", output, weights.value.to(p.dtype))
    if weights.value_bias is not None:
        output = output + weights.value_bias.view(query.size(1), 1, -1) * seen[..., None]
    power = (output.square() * (inputs.query.size(1) / rows.numel())).flatten(2).sum(-1, dtype=z.dtype)
    columns = torch.cat([power[..., None].float(), row_columns(z, valid, p, seen, p > 0.5)], dim=-1)
    return columns, row_sums(p)


def _logits(inputs: Inputs, weights: Weights, query: Tensor) -> Tensor:
    """Return z = q·k/√D for the sampled rows, [B, H, R, N_k] float32, before any mask."""
    scaled = query.float() / query.size(3) ** 0.5
    onto_inputs = torch.einsum("bhrd,hde->bhre", scaled, weights.key.float())
    z: Tensor = torch.einsum("bhre,bne->bhrn", onto_inputs, inputs.key.float())
    if weights.key_bias is None:
        return z
    z += (scaled * weights.key_bias.view(query.size(1), 1, -1)).sum(-1, keepdim=True)
    return z


def _mask(inputs: Inputs, rows: Tensor, heads: int) -> Tensor | None:
    """Return what is added to the logits of the sampled rows, broadcastable to [B, H, R, N_k], or None."""
    total = None
    if inputs.attn_mask is not None:
        mask = _additive(inputs.attn_mask.index_select(-2, rows))
        total = mask if mask.dim() == 2 else mask.view(-1, heads, *mask.shape[1:])
    if inputs.key_padding_mask is not None:
        padding = _additive(inputs.key_padding_mask)[:, None, None, :]
        total = padding if total is None else total + padding
    return total


def _additive(mask: Tensor) -> Tensor:
    return (
        torch.zeros_like(mask, dtype=torch.float32).masked_fill_(mask, -torch.inf)
        if mask.dtype == torch.bool
        else mask.float()
    )


def inputs_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of ``nn.MultiheadAttention`` by name."""
    return dict(zip(_ARGUMENTS, args, strict=False)) | dict(kwargs)


def _inputs(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
    given = inputs_of(args, kwargs)
    query, key, value = (given[name].detach() for name in ("query", "key", "value"))
    padding, mask = given.get("key_padding_mask"), given.get("attn_mask")
    if query.dim() == 2:
        query, key, value = query[None], key[None], value[None]
        padding = None if padding is None else padding[None]
    elif not module.batch_first:
        query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
    return Inputs(query, key, value, padding, mask)


def _weights(module: nn.MultiheadAttention) -> Weights:
    if module.in_proj_weight is not None:
        query, key, value = module.in_proj_weight.detach().chunk(3)
    else:
        query, key, value = (getattr(module, f"{name}_proj_weight").detach() for name in ("q", "k", "v"))
    biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.detach().chunk(3)
    key, value = (weight.reshape(module.num_heads, -1, weight.size(1)) for weight in (key, value))
    return Weights(query, biases[0], key, biases[1], value, biases[2])


def _heads(x: Tensor, heads: int) -> Tensor:
    """Split [B, R, E] into [B, H, R, D]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Project [B, R, E] with a weight per head [H, D, E] into [B, H, R, D]."""
    return _heads(F.linear(x, weight.flatten(0, 1), bias), weight.size(0))
