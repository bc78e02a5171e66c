"""The words for a model in which no attention was seen."""

from torch import nn

from stabmon.discover.site import Found


def nothing_found(model: nn.Module, found: Found) -> str:
    """Return that ``model`` called no attention that stabmon knows, with the nearest thing that was seen."""
    nearest = "; ".join(found.notes) or "no softmax or sigmoid of weights was seen either"
    return (
        f"found no attention in {type(model).__name__}: its pass called neither sigmoid_attention nor "
        "scaled_dot_product_attention, torch.nn.MultiheadAttention or Transformers' attention, nor "
        f"stabmon.record_attention; {nearest}"
    )
