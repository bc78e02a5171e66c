"""Small models of Transformers with random weights, and sigmoid attention in plain PyTorch to compare them with."""

import math
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor
from transformers.masking_utils import eager_mask

import stabmon.integrations.transformers  # noqa: F401 registers attn_implementation="sigmoid"

LENGTH = 16
"""The longest training length of every model but the one for images, which has 4 x 4 patches and a class token."""
TOKENS = 32


class Case(NamedTuple):
    """A model's classes, its configuration, and what it takes."""

    config: str
    model: str
    options: dict[str, Any]
    takes: str = "tokens"
    length: int = LENGTH

    def configuration(self, implementation: str = "sigmoid", **options: Any) -> Any:
        """Return its configuration, without dropout."""
        return getattr(transformers, self.config)(
            **{**self.options, "attn_implementation": implementation, **options}, bos_token_id=None, eos_token_id=None
        )

    def build(self, implementation: str = "sigmoid", **options: Any) -> Any:
        """Return the model, in training mode, with the weights of seed 0."""
        torch.manual_seed(0)
        return getattr(transformers, self.model)(self.configuration(implementation, **options)).train()

    def batch(self, length: int = LENGTH - 4, seed: int = 0) -> dict[str, Tensor]:
        """Return a batch of two with labels."""
        torch.manual_seed(seed)
        if self.takes == "images":
            return {"pixel_values": torch.randn(2, 3, 16, 16), "labels": torch.tensor([0, 1])}
        ids = torch.randint(3, TOKENS, (2, length))
        return {"input_ids": ids, "labels": ids}


_LLAMA = {
    "vocab_size": TOKENS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "pad_token_id": 0,
}
_WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
_BERT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
CASES = {
    "gpt2": Case(
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LENGTH, "pad_token_id": 0}
        | {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    ),
    "llama": Case("LlamaConfig", "LlamaForCausalLM", _LLAMA),
    "qwen3": Case("Qwen3Config", "Qwen3ForCausalLM", {**_LLAMA, **_WINDOW, "head_dim": 8}),
    "bert": Case("BertConfig", "BertForMaskedLM", {**_BERT, "vocab_size": TOKENS, "max_position_embeddings": LENGTH}),
    "vit": Case("ViTConfig", "ViTForImageClassification", {**_BERT, "image_size": 16, "patch_size": 4}, "images", 17),
    "bart": Case(
        "BartConfig",
        "BartForConditionalGeneration",
        {"vocab_size": TOKENS, "d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_layers": 2}
        | {"decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "dropout": 0.0}
        | {
            "max_position_embeddings": LENGTH,
            "pad_token_id": 0,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
        },
    ),
    "t5": Case(
        "T5Config",
        "T5ForConditionalGeneration",
        {"vocab_size": TOKENS, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
        | {"dropout_rate": 0.0, "pad_token_id": 0, "decoder_start_token_id": 2, "sigmoid_bias": -math.log(LENGTH)},
    ),
}


def plain_sigmoid(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """Attend as ``attn_implementation="sigmoid"`` is to, with the bias that ``module.config.plain_bias`` says."""
    groups = query.size(1) // key.size(1)
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    logits = query @ key.transpose(2, 3) * options["scaling"] + module.config.plain_bias
    for added in (mask, options.get("position_bias")):
        logits = logits if added is None else logits + added
    return (logits.sigmoid() @ value).transpose(1, 2), None


transformers.AttentionInterface.register("plain_sigmoid", plain_sigmoid)
transformers.AttentionMaskInterface.register("plain_sigmoid", eager_mask)
