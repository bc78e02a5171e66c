"""Reference plots: for each rule one picture of a bad and a good run, drawn from what real short runs recorded.

``runs.json`` holds the recorded series, ``plots/CODE.svg`` the pictures; ``python -m stabmon.rules.gallery`` draws them
again. A test holds that each rule has its picture and that the pictures are those of the stored runs.
"""

from stabmon.rules.gallery.draw import draw
from stabmon.rules.gallery.stored_runs import Curves, ReferenceRuns, plot_of, reference_runs

__all__ = ["Curves", "ReferenceRuns", "draw", "plot_of", "reference_runs"]
