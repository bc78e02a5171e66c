"""A fix as a change to the code that builds a model or trains it, in the form of a unified diff. No torch."""

from stabmon.fixes.code import is_ours, name_of, number
from stabmon.fixes.record import FixKind
from stabmon.records import Attention


def diff_for(kind: FixKind, attention: Attention | None, value: float | None, setting: str | None = None) -> str:
    """Return what changes in the user's code: removed and added lines under a line that says where.

    stabmon has not read that code: names stand for the user's own (``norm``, ``loss_of``).

    Raises:
        ValueError: the kind needs an attention, a value or a setting and none was given.
    """
    if kind.of_training:
        return _training(kind, value, setting)
    if attention is None:
        raise ValueError(f"a {kind.value} fix changes an attention, got none; pass the attention's record")
    if kind is FixKind.POSITION:
        return _position(attention, name_of(kind, setting), value)
    return (_own if is_ours(kind, attention) else _foreign)(kind, attention, value)


def _hunk(where: str, old: list[str], new: list[str], around: tuple[str, ...] = ()) -> str:
    lines = [f"@@ {where} @@", *(f" {line}" for line in around)]
    return "\n".join([*lines, *(f"-{line}" for line in old), *(f"+{line}" for line in new)])


def _training(kind: FixKind, value: float | None, setting: str | None) -> str:
    match kind:
        case FixKind.LEARNING_RATE:
            old = "optimizer = AdamW(model.parameters(), lr=rate)"
            return _hunk("optimizer", [old], [old.replace("rate)", f"rate * {number(kind, value)})")])
        case FixKind.WARMUP:
            scheduler = f"warmup = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / {number(kind, value)}))"
            return "\n".join((_hunk("optimizer", [], [scheduler]), _after_step("warmup.step()")))
        case FixKind.CLIP:
            clip = f"torch.nn.utils.clip_grad_norm_(model.parameters(), {number(kind, value)})"
            return _hunk("training step", [], [clip], ("loss.backward()",)) + "\n optimizer.step()"
        case FixKind.LENGTH:
            longer = number(kind, value)
            both = [f"length = {longer}", f"model = build(max_length={longer})  # its bias: -log({longer})"]
            return _hunk("model and data", ["model = build(max_length=length)"], both)
        case _:
            wanted = name_of(kind, setting)
            new = "loss = loss_of(model, batch)"
            if wanted == "bf16":
                return _hunk("training step", [new], ["with torch.autocast(device, torch.bfloat16):", f"    {new}"])
            return _hunk("training step", ["with torch.autocast(device, torch.float16):", f"    {new}"], [new])


def _after_step(line: str) -> str:
    return _hunk("training step", [], [line], ("optimizer.step()",))


def _position(attention: Attention, wanted: str, bias: float | None) -> str:
    there = repr(attention.position)
    value = repr(wanted) if wanted in ("rope", "alibi") else "None"
    value += "" if bias is None or attention.kind == "softmax" else f", bias={bias:.6g}"
    call = "SigmoidAttention(..., position={})" if is_ours(FixKind.POSITION, attention) else "positions = {}"
    return _hunk(
        f"where {attention.module or 'the attention'} is built", [call.format(there)], [call.format(value)]
    ).replace("'", '"')


def _own(kind: FixKind, attention: Attention, value: float | None) -> str:
    where = f"where {attention.module or 'the attention'} is built"
    block = f"where {attention.block or 'the block'} is built"
    size = f"{attention.heads * attention.head_dim}, {attention.heads}"
    match kind:
        case FixKind.BIAS:
            old = f"SigmoidAttention({size}, bias={_present(attention)}, ...)"
            return _hunk(where, [old], [f"SigmoidAttention({size}, bias={number(kind, value)}, ...)"])
        case FixKind.LEARNABLE_BIAS:
            start = "" if value is None else f", bias_start={number(kind, value)}"
            old = f"SigmoidAttention({size}, bias={_present(attention)}, ...)"
            return _hunk(where, [old], [f'SigmoidAttention({size}, bias="learnable"{start}, ...)'])
        case FixKind.QK_NORM:
            return _hunk(where, [f"SigmoidAttention({size}, ...)"], [f"SigmoidAttention({size}, qk_norm=True, ...)"])
        case FixKind.PRE_NORM:
            return _hunk(block, ['Block(width, attention, norm="post", ...)'], ["Block(width, attention, ...)"])
        case _:
            knob = f"layer_scale={number(kind, value)}" if kind is FixKind.LAYER_SCALE else "hybrid_norm=True"
            return _hunk(block, ["Block(width, attention, ...)"], [f"Block(width, attention, {knob}, ...)"])


def _present(attention: Attention) -> str:
    if isinstance(attention.bias, float):
        return f"{attention.bias:.6g}"
    return '"learnable"' if attention.bias == "learnable" else "..."


def _foreign(kind: FixKind, attention: Attention, value: float | None) -> str:
    width, head_dim = attention.heads * attention.head_dim, attention.head_dim
    init, forward = f"__init__ of {attention.module or 'the model'}", f"forward of {attention.module or 'the model'}"
    call, add = "sigmoid_attention(query, key, value", "x = x + self.attention(self.norm(x))"
    block = attention.block or "the block"
    match kind:
        case FixKind.BIAS | FixKind.LEARNABLE_BIAS if attention.kind == "softmax":
            return ""
        case FixKind.BIAS:
            return _hunk(forward, [f"{call}, ...)"], [f"{call}, bias={number(kind, value)}, ...)"])
        case FixKind.LEARNABLE_BIAS:
            start = "-math.log(max_length)" if value is None else number(kind, value)
            made = f"self.bias = torch.nn.Parameter(torch.full(({attention.heads},), {start}))"
            return "\n".join((_hunk(init, [], [made]), _hunk(forward, [f"{call}, ...)"], [f"{call}, bias=self.bias)"])))
        case FixKind.QK_NORM:
            norms = [f"self.{side}_norm = torch.nn.RMSNorm({head_dim})" for side in ("query", "key")]
            used = "query, key = self.query_norm(query), self.key_norm(key)"
            return "\n".join((_hunk(init, [], norms), _hunk(forward, [], [used], ("query, key, value = ...",))))
        case FixKind.PRE_NORM:
            return _hunk(f"forward of {block}", ["x = self.norm(x + self.attention(x))"], [add])
        case FixKind.LAYER_SCALE:
            name, made_of = "attention_scale", f"stabmon.nn.LayerScale({width}, {number(kind, value)})"
        case _:
            name, made_of = "attention_post_norm", f"torch.nn.RMSNorm({width})"
    used = f"x = x + self.{name}(self.attention(self.norm(x)))"
    return "\n".join(
        (_hunk(f"__init__ of {block}", [], [f"self.{name} = {made_of}"]), _hunk(f"forward of {block}", [add], [used]))
    )
