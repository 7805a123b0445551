"""What an operator can choose, read from the environment: every name begins with ``PJAIS_``.

``PJAIS_PORT=9000 pjais-server serve`` listens on port 9000; the options of the command come first. Nothing
needs to be set: without ``PJAIS_DATABASE_URL`` the server runs a Postgres of its own in the data folder
(`server.embedded`). Units are last in a name. Limits of the protocol are no settings: both ends must agree on
them (`crdt.limits`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.errors import SettingsError

__all__ = ["Settings", "load_settings"]

_PREFIX = "PJAIS_"


def _data_folder() -> Path:
    """The user's folder for data of programs (XDG Base Directory Specification 0.8)."""
    chosen = os.environ.get("XDG_DATA_HOME", "")
    base = Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".local" / "share"
    return base / "pjais-server"


def _is_postgres_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://, as in postgresql://user:password@host:5432/database")
    return url


class Settings(BaseSettings):
    """The settings of one server process. Frozen; `load_settings` makes them and says what is wrong."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    # Where it listens
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8787, ge=0, le=65_535, description="TCP port to listen on; 0 lets the system choose.")

    # Where its data is
    data: Path = Field(default_factory=_data_folder, description="Folder of the embedded Postgres.")
    database_url: Annotated[SecretStr, AfterValidator(_is_postgres_url)] | None = Field(
        None,
        description="A Postgres of at least 15 with pgvector of at least 0.8, instead of the embedded one.",
    )

    # Who may come in
    token_lifetime_s: PositiveInt = Field(
        3_600,
        description="A device signs a new challenge after this: short, because a token alone lets one in.",
    )
    challenge_lifetime_s: PositiveInt = Field(
        60, description="A challenge must be signed within this: a slow network, not a person, is waited for."
    )

    # How it talks to Postgres
    pool_size_min: PositiveInt = Field(2, description="Connections kept open by each process.")
    pool_size_max: PositiveInt = Field(
        12,
        description="Most connections of each process; four processes fit into the embedded Postgres's 64.",
    )
    pool_wait_s: PositiveFloat = Field(30.0, description="A request waits this long for a free connection.")
    connect_timeout_s: PositiveFloat = Field(
        10.0, description="At start Postgres is waited for this long, as it may be starting beside us."
    )
    statement_timeout_ms: PositiveInt = Field(
        30_000,
        description="Postgres ends a statement after this; the longest, a bootstrap page, takes 100 ms.",
    )
    lock_timeout_ms: PositiveInt = Field(
        10_000,
        description="Postgres gives up waiting for a lock after this; a group commit holds one for 50 ms.",
    )
    idle_in_transaction_timeout_ms: PositiveInt = Field(
        30_000,
        description="Postgres ends a transaction in which nothing happens, so a hung process frees its locks.",
    )

    # How pushes share a commit
    group_commit_rows_max: PositiveInt = Field(
        8_000, description="Updates in one commit, for all spaces: more hold the spaces' locks for too long."
    )
    group_commit_bytes_max: PositiveInt = Field(
        8 * 1024 * 1024, description="Bytes of updates in one commit; bounds the memory of a commit."
    )
    group_commit_delay_ms: float = Field(
        0.0,
        ge=0.0,
        le=1_000.0,
        description="Waits this long for company. 0: a commit takes what came while the one before it ran.",
    )

    # How documents are folded
    materialize_memory_bytes_max: PositiveInt = Field(
        1024 * 1024 * 1024,
        description="The folding process is ended past this and starts again; hostile bytes cost no more than that.",
    )

    # How spaces are searched
    search_index_from: PositiveInt = Field(
        20_000,
        description="A space gets an index of its own from so many vectors, or records; below, all are compared.",
    )

    @model_validator(mode="after")
    def _pool_is_a_range(self) -> Self:
        if self.pool_size_min > self.pool_size_max:
            raise ValueError("pool_size_min must not be more than pool_size_max")
        return self


def load_settings(**chosen: Any) -> Settings:
    """Return the settings: what is ``chosen`` here (None counts as not chosen), then the environment, then
    defaults.

    Raises:
        SettingsError: a value does not fit, or there is no such setting; it names the variable and says what
        would fit.
    """
    try:
        return Settings(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(
            tuple(_told(problem["loc"], problem["msg"]) for problem in error.errors())
        ) from None


def _told(place: tuple[int | str, ...], problem: str) -> str:
    """One problem for an operator, without the value: it may be a password."""
    name = _PREFIX + str(place[0]).upper() if place else "settings"
    return f"{name}: {problem.removeprefix('Value error, ')}"
