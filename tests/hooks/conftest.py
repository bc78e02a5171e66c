from tests.watched_model import kept, loss, one_thread, quiet, tiny

__all__ = ["kept", "loss", "one_thread", "quiet", "tiny"]
