"""Find the attention of a model that nobody here wrote, by its structure."""

from stabmon.discover.find import Site, find, sites

__all__ = ["Site", "find", "sites"]
