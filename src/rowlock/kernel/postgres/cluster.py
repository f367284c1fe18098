"""A cluster, PostgreSQL's word for its folder of databases: made as a whole or not at all, never misread."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from rowlock.kernel.postgres import files, wire
from rowlock.kernel.postgres.programs import PostgresUnavailable, Programs, is_unused

if TYPE_CHECKING:
    from pathlib import Path

INITDB_SECONDS = 300
BUILTIN_LOCALE_MAJOR = 17


def owner(cluster: Path) -> int | None:
    """Return the uid that owns the cluster; None if there is no cluster yet."""
    return cluster.stat().st_uid if (cluster / "PG_VERSION").exists() else None


def check(cluster: Path, programs: Programs) -> None:
    """See that these programs can serve this cluster.

    Raises:
        PostgresUnavailable: another version made it, or another user owns it.

    """
    made_by = (cluster / "PG_VERSION").read_text().strip() or "of an unknown version"
    if made_by != str(programs.major):
        message = (
            f"The data directory {cluster.parent} was made by PostgreSQL {made_by}, but this is PostgreSQL "
            f"{programs.major}. Dump it with PostgreSQL {made_by} and restore it into a new data directory, "
            f"or set ROWLOCK_PG_BIN to the programs of PostgreSQL {made_by}."
        )
        raise PostgresUnavailable(message)
    if (uid := cluster.stat().st_uid) != programs.run_as.uid:
        message = (
            f"The data directory {cluster.parent} belongs to user {uid}. "
            "Run Rowlock as that user, or choose another with ROWLOCK_DATA_DIR."
        )
        raise PostgresUnavailable(message)


def create(cluster: Path, programs: Programs, *, is_durable: bool) -> None:
    """Run initdb beside the final place and rename.

    Raises:
        PostgresUnavailable: initdb failed; nothing of it is left.

    """
    for left in cluster.parent.glob("pgdata.new-*"):  # by a start that was killed
        shutil.rmtree(left, ignore_errors=True)
    # A name of its own: the initdb of a killed start may live on for a moment.
    new = cluster.with_name(f"pgdata.new-{os.getpid()}")
    if is_unused(cluster.parent):
        files.hand_over(cluster.parent, programs.run_as)
    files.make_private(new, programs.run_as)
    try:
        _initdb(new, programs, is_durable=is_durable)
        new.rename(cluster)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _sync(cluster.parent)


def _initdb(folder: Path, programs: Programs, *, is_durable: bool) -> None:
    arguments = ["-D", str(folder), "-U", wire.USER, "-E", "UTF8", "-k", "--no-instructions"]
    arguments += ["--auth-local=trust", "--auth-host=reject"]
    if programs.major >= BUILTIN_LOCALE_MAJOR:
        # Its order does not change with the C library, which would break indexes.
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        arguments += ["--locale=C.UTF-8"]
    if not is_durable:
        arguments += ["--no-sync"]
    initdb = programs.spawn("initdb", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = initdb.communicate(timeout=INITDB_SECONDS)
    except BaseException:
        initdb.kill()
        initdb.communicate()
        raise
    if initdb.returncode != 0:
        said = files.complaint(output.decode(errors="replace"))
        message = f"The database cannot be made in {folder.parent}: {said}"
        raise PostgresUnavailable(message)


def _sync(folder: Path) -> None:
    """Make a rename in this folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
