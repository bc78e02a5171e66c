"""The longest training length, in tokens, that a model's configuration says."""

from typing import Any

_NAMES = ("max_position_embeddings", "n_positions", "context_length", "block_size", "max_seq_len", "n_ctx")


def longest(config: Any) -> int | None:
    """Return the longest training length that ``config`` says, or None."""
    for name in _NAMES:
        length = getattr(config, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return _image_tokens(config)


def _image_tokens(config: Any) -> int | None:
    """Return the patches of an image and the class token, where each attends to all."""
    image, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if image is None or patch is None or hasattr(config, "window_size"):
        return None
    (height, width), (down, right) = _pair(image), _pair(patch)
    return (height // down) * (width // right) + 1


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
