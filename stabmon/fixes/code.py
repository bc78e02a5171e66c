"""The lines that a user would write for a fix, on a model and an optimizer that exist already. No torch."""

from stabmon.fixes.record import FixKind
from stabmon.records import Attention


def code_for(kind: FixKind, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
    """Return the code that a user would write for a fix.

    For stabmon's own modules it changes ``model`` (the model without wrappers such as DDP) in place and can be pasted
    as it is; for any other attention it shows the lines of the user's own module.

    Raises:
        ValueError: the kind needs an attention, a value or a setting and none was given.
    """
    if kind.of_training:
        return _training_code(kind, value, setting)
    if attention is None:
        raise ValueError(f"a {kind.value} fix changes an attention, got none; pass the attention's record")
    if kind is FixKind.POSITION:
        return _position_code(attention, setting) + _bias_note(attention, value)
    return (_own_code if is_ours(kind, attention) else _foreign_code)(kind, attention, value)


def is_ours(kind: FixKind, attention: Attention) -> bool:
    """Say whether the place that ``kind`` changes stands in a module of stabmon's: an attention of ours, or Block."""
    in_block = attention.kind != "functional" and attention.branch == join(attention.block, "attention_scale")
    if kind in (FixKind.LAYER_SCALE, FixKind.HYBRID_NORM, FixKind.PRE_NORM):
        return in_block
    return attention.kind == "sigmoid" or (in_block and kind in (FixKind.QK_NORM, FixKind.POSITION))


def join(name: str, child: str) -> str:
    """Return the path of ``child`` in the module at ``name`` (empty: the model itself)."""
    return f"{name}.{child}" if name else child


def number(kind: FixKind, value: float | None) -> str:
    """Return ``value`` as code.

    Raises:
        ValueError: it is None.
    """
    if value is None:
        raise ValueError(f"a {kind.value} fix needs a value, got none")
    return f"{value:.6g}"


def name_of(kind: FixKind, setting: str | None) -> str:
    """Return ``setting``.

    Raises:
        ValueError: it is None.
    """
    if setting is None:
        raise ValueError(f"a {kind.value} fix needs a setting, got none")
    return setting


def _training_code(kind: FixKind, value: float | None, setting: str | None) -> str:
    match kind:
        case FixKind.LEARNING_RATE:
            return f'for group in optimizer.param_groups:\n    group["lr"] *= {number(kind, value)}'
        case FixKind.WARMUP:
            steps = number(kind, value)
            return (
                "warmup = torch.optim.lr_scheduler.LambdaLR("
                f"optimizer, lambda step: min(1.0, (step + 1) / {steps}))\nwarmup.step()  # after each optimizer.step()"
            )
        case FixKind.CLIP:
            clip = f"torch.nn.utils.clip_grad_norm_(model.parameters(), {number(kind, value)})"
            return f"{clip}  # between backward and optimizer.step()"
        case FixKind.LENGTH:
            return f"length = {number(kind, value)}  # of training sequences; the model's max_length and bias with it"
        case _:
            if name_of(kind, setting) == "fp32":
                return "loss = loss_of(model, batch)  # without torch.autocast"
            return 'with torch.autocast("cuda", torch.bfloat16):\n    loss = loss_of(model, batch)'


def _position_code(attention: Attention, setting: str | None) -> str:
    wanted = name_of(FixKind.POSITION, setting)
    if is_ours(FixKind.POSITION, attention):
        position = f'"{wanted}"' if wanted in ("rope", "alibi") else "None"
        return f"SigmoidAttention(..., position={position})  # where the model is built"
    if wanted == "rope":
        return "query, key = stabmon.nn.rotate(query, key)  # in forward, before the attention"
    if wanted == "alibi":
        return "sigmoid_attention(query, key, value, alibi_slopes=stabmon.nn.alibi_slopes(heads))"
    return "# add nothing to logits, queries or keys" if wanted == "none" else "x = x + positions.weight[: x.shape[1]]"


def _bias_note(attention: Attention, bias: float | None) -> str:
    return "" if bias is None or attention.kind == "softmax" else f"\n# with bias={bias:.6g}, which fits that scheme"


def _own_code(kind: FixKind, attention: Attention, value: float | None) -> str:
    module, block = f"attention = {_path(attention.module)}", f"block = {_path(attention.block)}"
    width, head_dim = attention.heads * attention.head_dim, attention.head_dim
    here, early = ".to(block.attention.out.weight)", "# before the optimizer is made: these are new parameters"
    match kind:
        case FixKind.BIAS:
            return f"{module}\nwith torch.no_grad():\n    attention.bias.fill_({number(kind, value)})"
        case FixKind.LEARNABLE_BIAS:
            start = "" if value is None else f".fill_({number(kind, value)})"
            made = f"bias = attention.bias.detach().clone(){start}\ndel attention.bias"
            return f"{early}\n{module}\n{made}\nattention.bias = torch.nn.Parameter(bias)"
        case FixKind.QK_NORM:
            norm = f"stabmon.nn.RMSNorm({head_dim}).to(attention.out.weight)"
            return f"{early}\n{module}\nattention.query_norm = {norm}\nattention.key_norm = {norm}"
        case FixKind.LAYER_SCALE:
            scale = f"stabmon.nn.LayerScale({width}, {number(kind, value)}){here}"
            return f"{early}\n{block}\nblock.attention_scale = {scale}"
        case FixKind.PRE_NORM:
            return f'{block}\nblock.norm = "pre"'
        case _:
            return f"{early}\n{block}\nblock.attention_post_norm = stabmon.nn.RMSNorm({width}){here}"


def _foreign_code(kind: FixKind, attention: Attention, value: float | None) -> str:
    width, head_dim = attention.heads * attention.head_dim, attention.head_dim
    match kind:
        case FixKind.BIAS | FixKind.LEARNABLE_BIAS if attention.kind == "softmax":
            return "# softmax makes every row sum to one: it has no bias to set"
        case FixKind.BIAS:
            return f"sigmoid_attention(query, key, value, bias={number(kind, value)})"
        case FixKind.PRE_NORM:
            return "x = x + self.attention(self.norm(x))  # in forward, in place of self.norm(x + self.attention(x))"
        case FixKind.LEARNABLE_BIAS:
            start = "-math.log(max_length)" if value is None else number(kind, value)
            made = f"self.bias = torch.nn.Parameter(torch.full(({attention.heads},), {start}))"
            used = "sigmoid_attention(query, key, value, bias=self.bias)"
        case FixKind.QK_NORM:
            made = f"self.query_norm, self.key_norm = torch.nn.RMSNorm({head_dim}), torch.nn.RMSNorm({head_dim})"
            used = "query, key = self.query_norm(query), self.key_norm(key)"
        case FixKind.LAYER_SCALE:
            made = f"self.attention_scale = stabmon.nn.LayerScale({width}, {number(kind, value)})"
            used = "x = x + self.attention_scale(self.attention(self.norm(x)))"
        case _:
            made = f"self.attention_post_norm = torch.nn.RMSNorm({width})"
            used = "x = x + self.attention_post_norm(self.attention(self.norm(x)))"
    return f"{made}  # in __init__\n{used}  # in forward"


def _path(name: str) -> str:
    return f'model.get_submodule("{name}")' if name else "model"
