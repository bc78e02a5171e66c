from tests.watched_model import kept, loss, quiet, seeded, tiny

__all__ = ["kept", "loss", "quiet", "seeded", "tiny"]
