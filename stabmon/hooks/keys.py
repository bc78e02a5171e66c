"""The keys of stabmon's hooks in the tables of modules: the same on modules with the same hooks."""

from typing import Any


def rekeyed(handle: Any) -> Any:
    """Give the hook that was registered last, whose ``handle`` torch returned, the next free key below zero.

    torch.compile takes the key of a hook into the guards of a graph, and torch numbers all hooks of a process: with its
    keys a graph of one block would fit no other block.
    """
    tables = [table for ref in (handle.hooks_dict_ref, *handle.extra_dict_ref) if (table := ref()) is not None]
    key = min(0, *tables[0]) - 1
    for table in tables:
        if handle.id in table:
            table[key] = table.pop(handle.id)
    handle.id = key
    return handle
