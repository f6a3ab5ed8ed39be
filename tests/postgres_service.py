"""A PostgreSQL to test against: a cluster of its own on a free port of this machine."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path
from typing import Any

import pytest


def binaries() -> Path | None:
    """Where initdb and pg_ctl lie; None without PostgreSQL."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = glob("/usr/lib/postgresql/*/bin/initdb")  # Debian keeps them out of PATH
    return Path(max(folders)).parent if folders else None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Postgres:
    """One cluster with password authentication; it can be stopped, started and restarted.

    Args:
        folder: the cluster is made in it.
        bin: where initdb and pg_ctl lie.
        durable: every commit waits for the disk, as in earnest; tests need not.
    """

    def __init__(self, folder: Path, bin: Path, durable: bool = False) -> None:
        self.data, self.bin, self.durable = folder / "data", bin, durable
        self.port = free_port()
        self.password = secrets.token_hex(12)
        self._as_user: dict[str, str] = {}
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            names = [user.pw_name for user in pwd.getpwall()]
            user = "postgres" if "postgres" in names else "nobody"
            self._as_user = {"user": user}
            shutil.chown(folder, user)
        secret = folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)  # inside a folder that only this user enters
        self._run(
            "initdb", "--username", "ptal", "--pwfile", secret, "--auth", "scram-sha-256",
            "--encoding", "UTF8", "--no-locale", "--no-sync",
        )  # fmt: skip

    def _run(self, program: str, *args: str | Path) -> None:
        command = [self.bin / program, "--pgdata", self.data, *args]
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, **self._as_user,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    @property
    def _options(self) -> tuple[str, ...]:
        # Loopback alone, no socket file. A crash of PostgreSQL, unlike one of the machine, loses
        # nothing without fsync.
        listen = f"-h 127.0.0.1 -p {self.port} -k '' -c fsync={'on' if self.durable else 'off'}"
        return ("--wait", "--log", str(self.data / "log"), "--options", listen)

    def start(self) -> None:
        self._run("pg_ctl", "start", *self._options)

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode", mode)

    def restart(self, mode: str = "immediate") -> None:
        """Stops it, by default as a crash would, and starts it on what is on disk."""
        self._run("pg_ctl", "restart", "--mode", mode, *self._options)

    def uri(self, database: str = "postgres", password: str | None = None) -> str:
        return f"postgresql://ptal:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        """URI of a new, empty database."""
        name = f"mlflow_{secrets.token_hex(4)}"
        self.query(f"create database {name}")
        return self.uri(name)

    def connect(self, uri: str, autocommit: bool = False) -> Any:
        """A connection, which is a context manager."""
        import psycopg

        return psycopg.connect(uri, autocommit=autocommit)

    def query(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Rows of one statement, run outside of a transaction."""
        with self.connect(self.uri(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running_postgres(durable: bool = False) -> Iterator[Postgres]:
    """A started cluster, which is gone afterwards; skips where no PostgreSQL is installed."""
    bin = binaries()
    if bin is None:
        pytest.skip("no PostgreSQL is installed (apt-get install postgresql)")
    # Not below pytest's folder, which other users may not enter.
    with tempfile.TemporaryDirectory(prefix="ptal_postgres_") as folder:
        postgres = Postgres(Path(folder), bin, durable)
        postgres.start()
        try:
            yield postgres
        finally:
            with suppress(AssertionError):  # a test may have left it stopped
                postgres.stop()
