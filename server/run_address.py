"""Addresses of runs: a run's name is its path under the folder, slashes included."""

from starlette.convertors import Convertor, register_url_convertor

PARTS = "findings|digest|failures|live|samples|heartbeat|(?:series|heatmap)/[^/]+"
"""Endings of an address that name a part of a run, as a regular expression."""
ITSELF = rf"(?s:(?!.*/(?:{PARTS})\Z).+)"
"""The name of a run, as a regular expression: any characters, and no part of a run at the end."""


class RunName(Convertor[str]):
    """The name of a run in the route of one of its parts, ``{name:run}``: any characters, line breaks included."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        """Return the name."""
        return value

    def to_string(self, value: str) -> str:
        """Return the name."""
        return value


class WholeRunName(RunName):
    """The name of a run at the end of a route, ``{name:whole_run}``."""

    regex = ITSELF


register_url_convertor("run", RunName())
register_url_convertor("whole_run", WholeRunName())
RUN = "/runs/{name:whole_run}"
"""The route of a run itself."""
