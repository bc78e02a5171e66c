"""Tokens of those who may read, write or administer a store. A store keeps their hashes, so it cannot reveal them."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, delete, exc, insert, select
from sqlalchemy.engine import Engine

from stabmon.errors import StoreError
from stabmon.records import Record
from stabmon.store.schema import token, tokens

FILE = "tokens.sqlite"
"""Name of the file in a folder of runs."""
MARK = "stabmon_"
"""Beginning of every token, by which scanners of published secrets know it."""


class Scope(StrEnum):
    """Rights of a token: to read everything, to write runs and read nothing, or everything, deleting included."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, needed: "Scope") -> bool:
        """Return whether a token of this scope may do what needs ``needed``."""
        return self in (needed, Scope.ADMIN)


class TokenInfo(Record):
    """A token that was created and not revoked."""

    name: str
    scope: Scope
    created: datetime


class Tokens:
    """The tokens of one store, in a table of a database.

    begin: opens a transaction; True where it is going to write.
    """

    def __init__(self, begin: Callable[[bool], AbstractContextManager[Connection]]) -> None:
        self._begin = begin

    def create(self, name: str, scope: Scope) -> str:
        """Return a new token, which nobody can read again.

        Raises:
            StoreError: there is one of this name already, or it cannot be written.
        """
        secret = MARK + secrets.token_urlsafe(32)
        line = {"name": name, "scope": scope.value, "digest": digest(secret), "created": datetime.now(UTC).isoformat()}
        with self._begin(True) as connection:
            if connection.execute(select(token.c.name).where(token.c.name == name)).first():
                raise StoreError(f"there is a token named {name!r} already; revoke it first, or give another name")
            connection.execute(insert(token), line)
        return secret

    def listed(self) -> tuple[TokenInfo, ...]:
        """Return all tokens by name; no secrets."""
        with self._begin(False) as connection:
            rows = connection.execute(select(token.c.name, token.c.scope, token.c.created).order_by(token.c.name)).all()
        return tuple(TokenInfo.model_validate(dict(row._mapping)) for row in rows)

    def revoke(self, name: str) -> bool:
        """Forget a token; return whether there was one of this name."""
        with self._begin(True) as connection:
            return connection.execute(delete(token).where(token.c.name == name)).rowcount > 0

    def scope_of(self, secret: str) -> Scope | None:
        """Return what ``secret`` allows, or None where it is no token of this store."""
        if not secret.startswith(MARK):
            return None
        with self._begin(False) as connection:
            query = select(token.c.scope).where(token.c.digest == digest(secret))
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else Scope(found)


def digest(secret: str) -> str:
    """Return the hash of a token. It is long and random, so that a fast hash is as good as a slow one."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def in_folder(directory: Path) -> Tokens:
    """Return the tokens of a folder of runs: in a file that its owner alone may read, made with the first token."""
    file = Path(directory) / FILE
    engine: Engine = create_engine(URL.create("sqlite", database=str(file)))

    @contextmanager
    def begin(writes: bool) -> Iterator[Connection]:
        if not writes and not file.exists():
            with create_engine("sqlite://").begin() as nothing:
                tokens.create_all(nothing)
                yield nothing
            return
        try:
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
            with engine.begin() as connection:
                tokens.create_all(connection)
                yield connection
        except (exc.SQLAlchemyError, OSError) as error:
            raise StoreError(f"cannot use the tokens in {file}: {error}") from error

    return Tokens(begin)
