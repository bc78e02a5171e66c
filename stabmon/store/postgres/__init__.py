"""A store of many runs in PostgreSQL, for a team; needs the extra ``postgres``."""

from stabmon.store.postgres.database import PostgresStore

__all__ = ["PostgresStore"]
