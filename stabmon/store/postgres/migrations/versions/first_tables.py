"""The tables as first released, those of schema 4; names of runs are unique, and the database numbers runs."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table("stabmon", sa.Column("schema", sa.Integer, primary_key=True, autoincrement=False))
    op.execute("INSERT INTO stabmon (schema) VALUES (4)")
    op.create_table(
        "run",
        sa.Column("run", sa.Integer, sa.Identity(), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("name", "info", "layout")),
    )
    op.create_index("run_name", "run", ["name"], unique=True)
    _lines("attempt", [("number", sa.Integer)], ("first", sa.BigInteger), ("time", sa.Double))
    sample = (("attempt", sa.Integer), ("step", sa.BigInteger), ("time", sa.Double), ("data", sa.LargeBinary))
    _lines("tail", [("sequence", sa.BigInteger)], *sample)
    reach = (("first", sa.BigInteger), ("last", sa.BigInteger))
    arrays = (("steps", sa.LargeBinary), ("times", sa.LargeBinary))
    _lines("fold", [("sequence", sa.BigInteger)], ("attempt", sa.Integer), ("samples", sa.Integer), *reach, *arrays)
    metric = ("metric", sa.String(120))
    place = (("attempt", sa.Integer), ("sequence", sa.BigInteger))
    _lines("logged", [metric, ("number", sa.BigInteger)], *place, *reach, ("data", sa.LargeBinary))
    _lines("chunk", [metric, ("sequence", sa.BigInteger)], ("data", sa.LargeBinary))
    _lines("level", [metric, ("size", sa.Integer), ("sequence", sa.BigInteger)], ("data", sa.LargeBinary))
    op.create_table(
        "heartbeat",
        sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(20), nullable=False),
        *(sa.Column(*one, nullable=False) for one in (("step", sa.BigInteger), ("time", sa.Double))),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("samples", "dropped")),
        sa.Column("overhead", sa.Double),
        sa.Column("interval", sa.Double, nullable=False),
    )
    op.create_table(
        "finding",
        sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
        *_keys([("code", sa.String(20)), ("layer", sa.String(400)), ("opened", sa.BigInteger)]),
        sa.Column("severity", sa.String(20), nullable=False),
        sa.Column("cleared", sa.BigInteger),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "failure",
        sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
        *_keys([("number", sa.Integer)]),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("subject", "reason")),
        *(sa.Column(name, sa.BigInteger) for name in ("first_step", "last_step")),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "token",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("scope", sa.String(20), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("created", sa.String(40), nullable=False),
    )


def _lines(name: str, keys: list[tuple[str, Any]], *columns: tuple[str, Any]) -> None:
    run = sa.Column("run", sa.Integer, primary_key=True, autoincrement=False)
    op.create_table(name, run, *_keys(keys), *(sa.Column(*column, nullable=False) for column in columns))


def _keys(keys: list[tuple[str, Any]]) -> list[Any]:
    return [sa.Column(*key, primary_key=True, autoincrement=False) for key in keys]
