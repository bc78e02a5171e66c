"""Heads, head dim and output projection of an attention module, by the names that libraries give them."""

from typing import Any

from torch import nn

from stabmon.errors import ModelError

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
_HEAD_DIMS = ("head_dim", "attention_head_size", "key_value_proj_dim", "dim_head", "d_head")
_WIDTHS = ("embed_dim", "hidden_size", "n_embd", "d_model", "dim", "width")
_QUERIES = ("to_q", "q_proj", "wq")
_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "o", "proj", "out", "to_out", "wo", "dense")


def heads(*modules: nn.Module) -> int:
    """Return how many query heads an attention has, by the first of ``modules`` that says it: its own, then its holder.

    Raises:
        ModelError: neither one of them nor its configuration says it.
    """
    return _whole(modules, _HEADS, "number of heads, which a learnable bias needs")


def head_dim(*modules: nn.Module) -> int:
    """Return the channels of a head, by ``modules`` as in ``heads``.

    Raises:
        ModelError: neither one of them nor its configuration says it.
    """
    try:
        return _whole(modules, _HEAD_DIMS, "head dim, which QK norm needs")
    except ModelError:
        queries = [getattr(module, name, None) for module in modules for name in _QUERIES]
        widths = [width for query in queries if isinstance(width := getattr(query, "out_features", None), int)]
        width = widths[0] if widths else _whole(modules, _WIDTHS, "head dim, which QK norm needs")
        return width // heads(*modules)


def holder(model: nn.Module, name: str) -> nn.Module:
    """Return the module that holds the weights of the attention ``name``: itself, or the nearest around it."""
    module = around = model.get_submodule(name)
    while name and all(parameter.dim() < 2 for parameter in around.parameters()):
        name = name.rpartition(".")[0]
        around = model.get_submodule(name)
    return around if any(True for _ in around.parameters()) else module


def projection(model: nn.Module, name: str) -> nn.Module:
    """Return the output projection of the attention ``name``: its own, or BERT's ``output.dense`` beside it.

    Raises:
        ModelError: none is known.
    """
    module = holder(model, name)
    beside = getattr(model.get_submodule(name.rpartition(".")[0]), "output", None) if name else None
    for found in (*(getattr(module, known, None) for known in _PROJECTIONS), getattr(beside, "dense", None)):
        if isinstance(found, nn.Module) and hasattr(found, "weight"):
            return found
    raise ModelError("its output projection is unknown, and LayerScale belongs behind it")


def width_out(projection: nn.Module) -> int:
    """Return how many channels ``projection`` gives.

    Raises:
        ModelError: it does not say it.
    """
    for name in ("out_features", "nf"):  # nf: GPT-2's Conv1D
        if isinstance(value := getattr(projection, name, None), int):
            return value
    raise ModelError(f"its output projection, a {type(projection).__name__}, does not say its channels")


def _whole(modules: tuple[nn.Module, ...], names: tuple[str, ...], what: str) -> int:
    for owner in (owner for module in modules for owner in (module, getattr(module, "config", None))):
        for name in names:
            value: Any = getattr(owner, name, None)
            if isinstance(value, int) and value > 0:
                return value
    raise ModelError(f"it does not say its {what}")
