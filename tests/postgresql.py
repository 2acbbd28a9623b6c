"""A PostgreSQL server for a test, gone with it."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _program(name: str) -> str:
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    assert found, f"{name} is needed: install PostgreSQL"
    return found


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of an empty database on 127.0.0.1; the server refuses to run as root, so it does as nobody then."""
    user = "nobody" if os.geteuid() == 0 else None
    folder.mkdir()
    if user:
        for parent in (folder, *folder.parents):
            if parent != Path("/tmp") and parent.owner() == "root" and str(parent).startswith("/tmp/"):
                parent.chmod(0o755)
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"

    def call(name: str, *words: str) -> None:
        subprocess.run([_program(name), *words], user=user, cwd="/", check=True, capture_output=True, text=True)

    call("initdb", "-D", str(data), "-A", "trust", "-U", "tester")
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    call("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
