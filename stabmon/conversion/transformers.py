"""Models of Hugging Face Transformers, through ``attn_implementation="sigmoid"`` and their configuration."""

import sys
from contextlib import ExitStack
from typing import Any

from torch import nn

from stabmon.conversion.changes import put
from stabmon.conversion.lengths import longest
from stabmon.conversion.report import Kept
from stabmon.conversion.work import ALREADY, Work
from stabmon.errors import ModelError


def convert(work: Work) -> None:
    """Convert the outermost Transformers models in ``work``."""
    if "transformers.modeling_utils" not in sys.modules:
        return  # then no model is one of Transformers
    from transformers import PreTrainedModel

    done: list[str] = []
    for name, module in list(work.remaining()):
        inside = any(not path or name.startswith(f"{path}.") for path in done)
        if isinstance(module, PreTrainedModel) and not inside:
            done.append(name)
            _convert(work, name, module)


def _convert(work: Work, name: str, model: Any) -> None:
    """Convert the attentions of one model, all or none."""
    from stabmon.integrations.transformers.modules import attentions

    found = [(f"{name}.{path}".strip("."), module) for path, module in attentions(model)]
    if not found or not _takes_functions(model):
        return  # a kind that comes later may know them
    with ExitStack() as changes:
        try:
            _refuse_what_sigmoid_lacks([module for _, module in found])
            _change(work, model, [module for _, module in found], changes)
        except ModelError as reason:
            work.kept += [Kept(path, str(reason)) for path, _ in found]
            return
        work.changes.push(changes.pop_all())
    from stabmon.integrations.transformers.options import first_bias

    for path, module in found:
        work.done("transformers", path, module, first_bias(module.config))


def _takes_functions(model: Any) -> bool:
    """Return whether all parts of ``model`` choose their attention by ``attn_implementation``."""
    from transformers import PreTrainedModel

    from stabmon.integrations.transformers.modules import takes_functions

    return all(takes_functions(part) for part in model.modules() if isinstance(part, PreTrainedModel))


def _refuse_what_sigmoid_lacks(modules: list[nn.Module]) -> None:
    for module in modules:
        config: Any = module.config
        if config._attn_implementation == "sigmoid":
            raise ModelError(ALREADY)
        if getattr(config, "attn_logit_softcapping", None) is not None:
            raise ModelError("its logits are capped (config.attn_logit_softcapping), which sigmoid attention lacks")
        if getattr(module, "sinks", None) is not None:
            raise ModelError("it has attention sinks, which sigmoid attention does not need and does not take")


def _change(work: Work, model: Any, modules: list[Any], undo: ExitStack) -> None:
    """Write the configuration, which ``equip`` then follows as it does for a model that is built or loaded."""
    from stabmon.integrations.transformers.modules import equip
    from stabmon.integrations.transformers.options import NAME

    wanted = work.wanted
    for config in _configs(model):
        undo.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation)
    kinds = {type(module.config) for module in modules}
    for config in (config for config in _configs(model) if type(config) in kinds):
        start = wanted.start(longest(config))
        put(config, "sigmoid_bias", wanted.bias if wanted.bias == "learnable" else start, undo)
        put(config, "sigmoid_bias_start", start if wanted.bias == "learnable" else None, undo)
        put(config, "sigmoid_qk_norm", wanted.qk_norm, undo)
        put(config, "sigmoid_layer_scale", wanted.layer_scale, undo)
    model.set_attn_implementation(NAME)
    if any(module.config._attn_implementation != NAME for module in modules):
        raise ModelError("Transformers does not let its class choose the attention; define the class in a file")
    equip(model, undo)


def _configs(model: Any) -> list[Any]:
    """Return the configurations of ``model`` and of all its parts."""
    found = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    return [config for config in found.values() if hasattr(config, "_attn_implementation_internal")]
