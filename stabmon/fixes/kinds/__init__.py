"""The kinds of fix, one file each: every file of this folder is imported, and its kind joins the registry. No torch."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
