"""What a rule may suggest, as data: each function makes one ``Fix`` with the code that a user would write. No torch."""

from stabmon.records import Attention, Fix, FixKind, Safety


def bias_fix(attention: Attention, value: float, why: str) -> Fix:
    """Suggest the bias ``value`` (added to every logit of every head) for ``attention``."""
    return _fix(FixKind.BIAS, attention, value, why, Safety.ANY_TIME)


def qk_norm_fix(attention: Attention, why: str) -> Fix:
    """Suggest an RMS norm per head on queries and keys, which bounds the logits by √head_dim times the gains."""
    return _fix(FixKind.QK_NORM, attention, None, why, Safety.BEFORE_TRAINING)


def layer_scale_fix(attention: Attention, value: float, why: str) -> Fix:
    """Suggest a learnable gain per channel on the attention branch, starting at ``value``."""
    return _fix(FixKind.LAYER_SCALE, attention, value, why, Safety.BEFORE_TRAINING)


def hybrid_norm_fix(attention: Attention, why: str) -> Fix:
    """Suggest a norm on the attention's output as well: x + norm(attention(norm(x)))."""
    return _fix(FixKind.HYBRID_NORM, attention, None, why, Safety.BEFORE_TRAINING)


def learning_rate_fix(factor: float, why: str) -> Fix:
    """Suggest multiplying the learning rate by ``factor`` (below 1 lowers it)."""
    code = code_for(FixKind.LEARNING_RATE, None, factor)
    return Fix(kind=FixKind.LEARNING_RATE, module="", value=factor, safety=Safety.BY_HAND, why=why, code=code)


def _fix(kind: FixKind, attention: Attention, value: float | None, why: str, safety: Safety) -> Fix:
    return Fix(
        kind=kind,
        module=attention.module,
        value=value,
        safety=safety if _is_ours(kind, attention) else Safety.BY_HAND,
        why=why,
        code=code_for(kind, attention, value),
    )


def code_for(kind: FixKind, attention: Attention | None, value: float | None) -> str:
    """Return the code that a user would write for a fix.

    For stabmon's own modules it changes ``model`` (the model without wrappers such as DDP) in place and can be pasted
    as it is; for any other attention it shows the lines of the user's own module.

    Raises:
        ValueError: the kind needs an attention or a value and none was given.
    """
    if kind is FixKind.LEARNING_RATE:
        return f'for group in optimizer.param_groups:\n    group["lr"] *= {_number(kind, value)}'
    if attention is None:
        raise ValueError(f"a {kind.value} fix changes an attention, got none; pass the attention's record")
    return (_own_code if _is_ours(kind, attention) else _foreign_code)(kind, attention, value)


def _is_ours(kind: FixKind, attention: Attention) -> bool:
    """Say whether the place that ``kind`` changes stands in a module of stabmon's: SigmoidAttention, or Block."""
    if kind in (FixKind.BIAS, FixKind.QK_NORM):
        return attention.kind == "sigmoid"
    return attention.kind == "sigmoid" and attention.branch == join(attention.block, "attention_scale")


def _own_code(kind: FixKind, attention: Attention, value: float | None) -> str:
    module, block = f"attention = {_path(attention.module)}", f"block = {_path(attention.block)}"
    width, head_dim = attention.heads * attention.head_dim, attention.head_dim
    here, early = ".to(block.attention.out.weight)", "# before the optimizer is made: these are new parameters"
    match kind:
        case FixKind.BIAS:
            return f"{module}\nwith torch.no_grad():\n    attention.bias.fill_({_number(kind, value)})"
        case FixKind.QK_NORM:
            norm = f"stabmon.nn.RMSNorm({head_dim}).to(attention.out.weight)"
            return f"{early}\n{module}\nattention.query_norm = {norm}\nattention.key_norm = {norm}"
        case FixKind.LAYER_SCALE:
            scale = f"stabmon.nn.LayerScale({width}, {_number(kind, value)}){here}"
            return f"{early}\n{block}\nblock.attention_scale = {scale}"
        case _:
            return f"{early}\n{block}\nblock.attention_post_norm = stabmon.nn.RMSNorm({width}){here}"


def _foreign_code(kind: FixKind, attention: Attention, value: float | None) -> str:
    width, head_dim = attention.heads * attention.head_dim, attention.head_dim
    match kind:
        case FixKind.BIAS if attention.kind == "softmax":
            return "# softmax makes every row sum to one: it has no bias to set"
        case FixKind.BIAS:
            return f"sigmoid_attention(query, key, value, bias={_number(kind, value)})"
        case FixKind.QK_NORM:
            made = f"self.query_norm, self.key_norm = torch.nn.RMSNorm({head_dim}), torch.nn.RMSNorm({head_dim})"
            used = "query, key = self.query_norm(query), self.key_norm(key)"
        case FixKind.LAYER_SCALE:
            made = f"self.attention_scale = stabmon.nn.LayerScale({width}, {_number(kind, value)})"
            used = "x = x + self.attention_scale(self.attention(self.norm(x)))"
        case _:
            made = f"self.attention_post_norm = torch.nn.RMSNorm({width})"
            used = "x = x + self.attention_post_norm(self.attention(self.norm(x)))"
    return f"{made}  # in __init__\n{used}  # in forward"


def join(name: str, child: str) -> str:
    """Return the path of ``child`` in the module at ``name`` (empty: the model itself)."""
    return f"{name}.{child}" if name else child


def _path(name: str) -> str:
    return f'model.get_submodule("{name}")' if name else "model"


def _number(kind: FixKind, value: float | None) -> str:
    if value is None:
        raise ValueError(f"a {kind.value} fix needs a value, got none")
    return f"{value:.6g}"
