"""Find the attentions of any model by running it once."""

from stabmon.discover.scan import scan
from stabmon.discover.site import Found, Site

__all__ = ["Found", "Site", "scan"]
