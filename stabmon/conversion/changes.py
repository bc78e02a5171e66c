"""Changes of attributes that can be taken back."""

from contextlib import ExitStack


def put(owner: object, name: str, value: object, undo: ExitStack) -> None:
    """Set an attribute; ``undo`` gives it its present value back, or takes it away."""
    if hasattr(owner, name):
        undo.callback(setattr, owner, name, getattr(owner, name))
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, value)
