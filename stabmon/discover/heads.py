"""Number of heads of an attention and their width, read from the usual names of these attributes."""

from collections.abc import Mapping

from torch import nn

from stabmon.errors import ModelError

HEADS = ("heads", "num_heads", "n_heads", "n_head", "nhead", "num_attention_heads", "head_count")
HEAD_DIM = ("head_dim", "dim_head", "d_head", "head_size", "attention_head_size", "d_k")
WIDTH = ("embed_dim", "width", "d_model", "hidden_size", "n_embd", "embedding_dim", "dim")


def count(module: nn.Module, name: str, given: Mapping[str, int]) -> int:
    """Return the number of query heads of ``module``, whose path is ``name``.

    Raises:
        ModelError: neither ``given`` nor an attribute has it.
    """
    found = given.get(name) or _attribute(module, HEADS)
    if found is None:
        raise ModelError(
            f"cannot determine how many heads {name} ({type(module).__name__}) has: none of its attributes "
            f"{', '.join(HEADS)} is a positive whole number; pass heads={{{name!r}: <number of heads>}}"
        )
    return found


def width(module: nn.Module, name: str, heads: int) -> int:
    """Return the head dim of ``module``: an attribute, its width over ``heads``, or the last projection's.

    Raises:
        ModelError: no attribute or projection has it.
    """
    if (named := _attribute(module, HEAD_DIM)) is not None:
        return named
    projections = [child.in_features for child in module.modules() if isinstance(child, nn.Linear)]
    total = _attribute(module, WIDTH) or (projections[-1] if projections else None)
    if total is None or total % heads:
        raise ModelError(
            f"cannot determine the head dim of {name} ({type(module).__name__}) with {heads} heads: none of its "
            f"attributes {', '.join((*HEAD_DIM, *WIDTH))} says it; give the module an attribute head_dim"
        )
    return total // heads


def _attribute(module: nn.Module, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = getattr(module, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
