"""Hugging Face Transformers: the Trainer's callback and the attention function ``attn_implementation="sigmoid"``."""

from stabmon.integrations.transformers import attention, modules
from stabmon.integrations.transformers.callback import StabmonCallback

__all__ = ["StabmonCallback", "attention", "modules"]
