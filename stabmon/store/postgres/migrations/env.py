"""Migrations as Alembic runs them, in the transaction that is open."""

from alembic import context

from stabmon.store import schema

context.configure(connection=context.config.attributes["connection"], target_metadata=[schema.metadata, schema.tokens])
context.run_migrations()
