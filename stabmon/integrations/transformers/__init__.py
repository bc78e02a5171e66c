"""Hugging Face Transformers: a callback, the attention ``attn_implementation="sigmoid"``, and a key/value cache."""

from stabmon.integrations.transformers import attention, modules
from stabmon.integrations.transformers.callback import StabmonCallback
from stabmon.integrations.transformers.key_value_cache import KeyValueCache

__all__ = ["KeyValueCache", "StabmonCallback", "attention", "modules"]
