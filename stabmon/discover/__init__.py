"""Find the attention modules of any model by its structure."""

from stabmon.discover.find import Site, find, sites

__all__ = ["Site", "find", "sites"]
