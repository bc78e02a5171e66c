"""Migrations of the PostgreSQL tables, by Alembic; one file each under ``versions``. SQLite files have ``schema``."""

from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from stabmon.errors import ConfigError, StoreError

_ONE_AT_A_TIME = 7_226_863
"""Number of the lock by which servers that start together bring the tables to the present schema one after another."""


def upgrade(engine: Engine) -> None:
    """Bring the tables to the present schema.

    Raises:
        ConfigError: Alembic is not installed.
        StoreError: the tables are those of a newer stabmon.
    """
    try:
        from alembic import command, util
        from alembic.config import Config
    except ImportError as error:
        raise ConfigError("a PostgreSQL store needs Alembic: pip install 'stabmon[postgres]'") from error
    config: Any = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except util.CommandError as error:
            where = engine.url.render_as_string(hide_password=True)
            raise StoreError(f"{where} was written by a newer stabmon ({error}): upgrade stabmon") from error
