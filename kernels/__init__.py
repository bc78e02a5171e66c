"""Fused sigmoid attention with a learnable bias and statistics; importing it needs neither triton nor a GPU."""

if __name__ != "kernels":  # Transformers imports that name from a checkout's root, where it finds this folder
    from . import observe
    from .api import sigmoid_attention
    from .auxiliary import STATISTICS, AuxOutput, AuxRequest
    from .problem import Backend
    from .varlen import sigmoid_attention_varlen

    __all__ = [
        "STATISTICS",
        "AuxOutput",
        "AuxRequest",
        "Backend",
        "observe",
        "sigmoid_attention",
        "sigmoid_attention_varlen",
    ]
