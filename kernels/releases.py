"""Releases of Triton that the kernels are written for, and the installed one."""

import importlib.metadata

Release = tuple[int, ...]
SUPPORTED: tuple[Release, Release] = ((3, 6), (3, 9))
"""The oldest and the newest release that every kernel compiles under. Gluon's names move between releases, so the
hopper backend takes none outside them; the triton backend takes newer ones too."""


def _installed() -> Release | None:
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(int(part) for part in version.split(".")[:2])


INSTALLED = _installed()
OLDEST_TORCH: Release = (2, 10)
"""The first release of torch that comes with a supported Triton."""


def name(release: Release | None) -> str:
    """Return a release as it is spelled."""
    return "none" if release is None else ".".join(map(str, release))


def is_older(release: Release) -> bool:
    """Return whether ``release`` is older than the oldest that is supported."""
    return release < SUPPORTED[0]


def is_supported() -> bool:
    """Return whether the installed release is one under which every kernel compiles."""
    return INSTALLED is not None and SUPPORTED[0] <= INSTALLED <= SUPPORTED[1]
