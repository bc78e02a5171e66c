"""``python -m stabmon.kernels.bench``."""

from .benchmark import main

main()
