"""Taking a folder for a run that is to start or to go on, before anything is written."""

from contextlib import ExitStack
from pathlib import Path

from stabmon.errors import StoreError
from stabmon.store.connect import FILE, in_our_words
from stabmon.store.owner import Owner
from stabmon.store.reader import open_run


def reserve(folder: Path, *, resume: bool = False) -> Owner:
    """Return the ownership of ``folder``, which is made, for a run that is to start or, with ``resume``, to go on.

    Raises:
        StoreError: a run is there and ``resume`` is False, or it is foreign, newer or damaged; another process writes
            it; the folder cannot be made.
    """
    file = Path(folder) / FILE
    with ExitStack() as undo, in_our_words(file, "resuming the run" if resume else "creating the run"):
        file.parent.mkdir(parents=True, exist_ok=True)
        refuse_existing(file, resume=resume)
        owner = Owner(file.parent)
        undo.callback(owner.release)
        if refuse_existing(file, resume=resume):
            open_run(file).close()
        undo.pop_all()
        return owner


def refuse_existing(file: Path, *, resume: bool) -> bool:
    """Return whether there is a run to go on with; raise where there is one that must not be written over."""
    there = file.exists() and (not file.is_file() or file.stat().st_size > 0)
    if there and not resume:
        raise StoreError(
            f"the run {file.parent.name!r} exists already at {file.parent}: give another name, pass resume=True to go "
            "on with it, or delete the folder"
        )
    return there
