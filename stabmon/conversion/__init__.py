"""Softmax attention to sigmoid attention, in place, for the models of several libraries."""

from stabmon.conversion.in_place import convert, converted
from stabmon.conversion.report import ConversionReport

__all__ = ["ConversionReport", "convert", "converted"]
