"""Hugging Face Transformers: the Trainer's callback and the attention function ``attn_implementation="sigmoid"``."""

from stabmon.integrations.transformers import attention, modules

__all__ = ["attention", "modules"]
