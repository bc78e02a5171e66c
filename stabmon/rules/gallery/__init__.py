"""Reference plots: for each rule one picture of a bad and a good run, drawn from what real short runs recorded.

``runs.json`` holds the recorded series, ``plots/CODE.svg`` the pictures. ``python -m stabmon.rules.gallery record``
trains the runs again, ``python -m stabmon.rules.gallery draw`` draws the pictures; both need the extra ``plots``.
"""

from stabmon.rules.gallery.stored_runs import Curves, ReferenceRuns, plot_of, reference_runs

__all__ = ["Curves", "ReferenceRuns", "plot_of", "reference_runs"]
