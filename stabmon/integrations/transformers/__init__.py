"""Hugging Face Transformers: the Trainer's callback and the attention function ``attn_implementation="sigmoid"``."""
