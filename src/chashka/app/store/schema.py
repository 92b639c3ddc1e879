"""The tables, as SQLAlchemy Core knows them. They change by numbered migrations alone (``migrations.py``)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import BigInteger

BIG = BigInteger().with_variant(Integer, "sqlite")
WORD = String(64).with_variant(String(64, collation="C"), "postgresql")
"""Compared sign by sign in both databases: a search for the beginning of a word is a range of this order."""
HERE: dict[str, Any] = {"sqlite_where": text("deleted IS NULL"), "postgresql_where": text("deleted IS NULL")}
GONE: dict[str, Any] = {"sqlite_where": text("deleted IS NOT NULL"), "postgresql_where": text("deleted IS NOT NULL")}
TABLES = MetaData()

jobs = Table(
    "jobs",
    TABLES,
    Column("id", String(40), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("owner", String(40), nullable=False),
    Column("state", String(10), nullable=False),
    Column("place", Float, nullable=False),  # order in the queue: the time it was submitted, unless it was moved
    Column("fields", JSON, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("parents", JSON, nullable=False),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("attempts", Integer, nullable=False, default=0),
    Column("fence", Integer, nullable=False, default=0),
    Column("lease_until", Float),
    Column("worker", String(80)),
    Column("done", Integer, nullable=False, default=0),
    Column("total", Integer, nullable=False, default=0),
    Column("stop", String(5), nullable=False, default=""),
    Column("problem_code", String(40)),
    Column("problem", Text),
    Column("notes", JSON, nullable=False, default=list),
    Column("result", JSON),
    Column("consent", Boolean, nullable=False, default=False),
    Column("key", String(255)),
    Column("body", String(64)),
    UniqueConstraint("owner", "key", name="jobs_key"),
    Index("jobs_queue", "state", "place"),
    Index("jobs_waiting", "state", "owner", "place", "id"),
    Index("jobs_lease", "state", "lease_until"),
    Index("jobs_turn", "owner", "started"),  # whose last claim is longest ago
    Index("jobs_owner", "owner", "created", "id"),
    Index("jobs_created", "created", "id"),
    Index("jobs_state", "state", "created", "id"),
    Index("jobs_finished", "finished"),
)

pictures = Table(
    "pictures",
    TABLES,
    Column("number", BIG, primary_key=True, autoincrement=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("job", String(40), ForeignKey("jobs.id")),
    Column("index", Integer, nullable=False),
    Column("owner", String(40), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("thumbnail", String(64), nullable=False),
    Column("media_type", String(40), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("dhash", String(16), nullable=False),
    Column("prompt", Text, nullable=False, default=""),
    Column("negative_prompt", Text, nullable=False, default=""),
    Column("model", String(120), nullable=False, default=""),
    Column("family", String(40), nullable=False, default=""),
    Column("seed", BIG),
    Column("metadata", JSON, nullable=False),
    Column("source", String(10), nullable=False, default="drawn"),
    Column("created", Float, nullable=False),
    Column("favourite", Boolean, nullable=False, default=False),
    Column("deleted", Float),
    UniqueConstraint("job", "index", name="pictures_once"),
    # what lists walk, newest first: partial, so that deleted pictures cost nothing
    Index("pictures_here", "number", **HERE),
    Index("pictures_owner", "owner", "number", **HERE),
    Index("pictures_model", "model", "number", **HERE),
    Index("pictures_favourite", "favourite", "number", **HERE),
    Index("pictures_source", "source", "number", **HERE),
    Index("pictures_created", "created", "number"),
    Index("pictures_sha256", "sha256"),
    Index("pictures_thumbnail", "thumbnail"),
    Index("pictures_deleted", "number", **GONE),
    sqlite_autoincrement=True,
)

words = Table(
    "words",
    TABLES,
    Column("word", WORD, primary_key=True),
    Column("picture", BIG, ForeignKey("pictures.number", ondelete="CASCADE"), primary_key=True),
    Index("words_picture", "picture", "word"),
    sqlite_with_rowid=False,
)

parents = Table(
    "parents",
    TABLES,
    Column("child", String(40), primary_key=True),
    Column("parent", String(40), primary_key=True),
    Column("use", String(40), primary_key=True),
    Index("parents_parent", "parent"),
)

collections = Table(
    "collections",
    TABLES,
    Column("id", String(40), primary_key=True),
    Column("owner", String(40), nullable=False),
    Column("name", String(200), nullable=False),
    Column("created", Float, nullable=False),
    UniqueConstraint("owner", "name", name="collections_name"),
)

collected = Table(
    "collected",
    TABLES,
    Column("collection", String(40), ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True),
    Column("picture", BIG, ForeignKey("pictures.number", ondelete="CASCADE"), primary_key=True),
    Index("collected_picture", "picture"),
)

sent = Table(  # one row for every file that was saved or sent, so that it is known again without its metadata
    "sent",
    TABLES,
    Column("sha256", String(64), primary_key=True),
    Column("dhash", String(16), nullable=False),
    Column("picture", String(40)),
    Column("privacy", String(12), nullable=False, default="full"),
    Column("at", Float, nullable=False),
    Index("sent_dhash", "dhash"),
)

keys = Table(
    "keys",
    TABLES,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("secret", String(64), nullable=False, unique=True),  # sha256
    Column("scopes", JSON, nullable=False),
    Column("created", Float, nullable=False),
    Column("revoked", Float),
)

sessions = Table(
    "sessions",
    TABLES,
    Column("secret", String(64), primary_key=True),  # sha256
    Column("key", String(40), ForeignKey("keys.id", ondelete="CASCADE"), nullable=False),
    Column("until", Float, nullable=False),
)

audit = Table(  # refusals and administration, without prompts: the sha256 of what was asked
    "audit",
    TABLES,
    Column("number", BIG, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("owner", String(40), nullable=False),
    Column("what", String(40), nullable=False),
    Column("about", String(120), nullable=False, default=""),
)
