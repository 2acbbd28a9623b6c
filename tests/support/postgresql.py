"""A PostgreSQL server for a test, gone with it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _program(name: str) -> str:
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    assert found, f"{name} is needed: install PostgreSQL"
    return found


@contextmanager
def server(password: str = "") -> Iterator[str]:
    """The address of an empty database on 127.0.0.1; the server refuses to run as root, so it does as nobody then.

    With a password, it is asked for, and percent-encoded in the address.
    """
    with tempfile.TemporaryDirectory(prefix="nfa-postgresql-", ignore_cleanup_errors=True) as folder:
        yield from _served(Path(folder), password)


def _served(folder: Path, password: str) -> Iterator[str]:
    user = "nobody" if os.geteuid() == 0 else None
    if user:  # not in a folder of pytest's, which other sessions of it close to other users
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"

    def call(name: str, *words: str) -> None:
        subprocess.run([_program(name), *words], user=user, cwd="/", check=True, capture_output=True, text=True)

    method = ["-A", "trust"]
    if password:
        (folder / "password").write_text(f"{password}\n", encoding="utf-8")
        (folder / "password").chmod(0o644)
        method = ["-A", "scram-sha-256", "--pwfile", str(folder / "password")]
    call("initdb", "-D", str(data), *method, "-E", "UTF8", "-U", "tester")
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    call("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        name = f"tester:{urllib.parse.quote(password, safe='')}" if password else "tester"
        yield f"postgresql://{name}@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
