"""Teams: what an answer says beside its verdict, places reserved for people, guidelines, users and what they were refused."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":  # its json refuses NaN, which is how an unknown figure is written
        for table, name in (("datasets", "lineage"), ("runs", "config"), ("rounds", "facts"), ("events", "payload")):
            op.alter_column(table, name, type_=sa.Text(), postgresql_using=f"{name}::text")
    op.add_column("runs", sa.Column("overlap", sa.Integer(), nullable=False, server_default="1"))
    for column in (
        sa.Column("strength", sa.Integer(), nullable=True),
        sa.Column("flagged", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("note", sa.String(), nullable=False, server_default=""),
        sa.Column("blind", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("active_ms", sa.Integer(), nullable=True),
        sa.Column("guidelines", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("model", sa.String(), nullable=False, server_default=""),
    ):
        op.add_column("reviews", column)
    op.drop_index("ix_reviews_run", "reviews")
    op.create_index("ix_reviews_run_id", "reviews", ["run", "id"])
    op.create_index("ix_reviews_run_pair", "reviews", ["run", "pair"])
    op.create_table(
        "leases",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("pair", sa.String(), nullable=False),
        sa.Column("annotator", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("asked", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("left_is", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("margin", sa.Float(), nullable=False),
        sa.Column("self_label", sa.String(), nullable=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("leased_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token"),
    )
    op.create_index("ix_leases_run_pair", "leases", ["run", "pair"])
    op.create_table(
        "guidelines",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"]),
        sa.PrimaryKeyConstraint("run", "version"),
    )
    op.create_table(
        "users",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("password", sa.String(), nullable=True),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("email"),
    )
    op.create_table(
        "sessions",
        sa.Column("token_digest", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["user"], ["users.key"]),
        sa.PrimaryKeyConstraint("token_digest"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_attempts_user", "attempts", ["user"])
    op.create_table(
        "refusals",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("act", sa.String(), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
