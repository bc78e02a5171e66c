"""Exceptions that stabmon raises: each message says what was expected, what came and what to do."""


class StabmonError(Exception):
    """Marks an error that is meant for the user; the command line prints it without a traceback and exits with 2."""


class ConfigError(StabmonError, ValueError):
    """A configuration file or limit that cannot be read as asked."""


class ModelError(StabmonError, ValueError):
    """A model that cannot be watched or fixed as it is."""


class WatchError(StabmonError, RuntimeError):
    """A monitor used out of order: watched twice, attached after compiling, used after it was closed."""


class ArgumentError(WatchError, ValueError):
    """An argument of ``watch`` of another kind or range than it describes."""


class FixError(StabmonError, RuntimeError):
    """A fix that cannot be applied to this model; the message holds the code to write instead."""


class StoreError(StabmonError, RuntimeError):
    """A run that is missing, foreign, newer than this stabmon, or cannot be written."""
