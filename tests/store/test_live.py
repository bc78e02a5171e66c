"""A reader that comes late reads a long run part by part, and no more of it than it asked for."""

import numpy as np
import pytest
from sqlalchemy import Engine, event

from stabmon.store import open_run


@pytest.fixture
def read():
    """The statements that this process sends to any store, in order."""
    statements: list[str] = []

    def keep(connection, cursor, statement, *rest):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", keep)
    yield statements
    event.remove(Engine, "before_cursor_execute", keep)


@pytest.mark.parametrize("limit", [1, 100, 128, 200, 1000])
def test_parts_are_the_whole_run_and_read_only_their_own_folds(limit, write, odd_rows, read, tmp_path):
    rows = odd_rows(700)
    write(rows)
    read.clear()
    with open_run(tmp_path / "lm") as run:
        cursor, parts = 0, []
        while len(new := run.after(cursor, limit=limit).rows) and len(parts) < 5:
            parts.append(new)
            cursor += len(new)
            folds = sum("FROM chunk" in statement for statement in read)
            assert folds <= limit // 128 + 2
            read.clear()
    seen = np.concatenate(parts)
    np.testing.assert_array_equal(seen.view(np.uint32), rows[: len(seen)].view(np.uint32))
    assert len(seen) == min(700, 5 * limit)
