"""A real Neo4j server on this machine without Docker: `python -m tracestore.store.neo4j.local start`.

1. Jars from the cache (fetched with Maven when missing), a Java that fits them.
2. A home folder of its own, private to the user: configuration, data, logs, a password file.
3. First start: a random password, given to the server's admin tool in an argument file, so that no process list ever shows it.
4. Start in the background, on loopback only, with authentication; ready when the driver gets an answer.
5. `server.json` notes the process and the port. A note whose process is gone, or is another program by now, counts for nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import BadInputError, StoreUnavailableError, TracestoreError
from tracestore.store.neo4j.jars import DEFAULT_VERSION, RELEASES, Release, fetch_jars, java_for, release_of

if TYPE_CHECKING:
    from filelock import FileLock

_POLL_S: Final = 0.1
_READY_S: Final = 120.0
_STOP_S: Final = 60.0
_IMPORT: Final = ("database", "import", "full")
_ADMIN_OPENS: Final = ("--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Memory of the server, further settings of neo4j.conf, further options of Java."""

    heap: str = "1g"
    page_cache: str = "256m"
    settings: Mapping[str, str] = field(default_factory=dict)
    java_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs: where it answers, its process, and the file that holds its password."""

    uri: str
    username: str
    password_file: Path
    pid: int
    version: str

    @property
    def environment(self) -> dict[str, str]:
        """Give the variables that make every tracestore command use it."""
        return {"NEO4J_URI": self.uri, "NEO4J_USERNAME": self.username, "NEO4J_PASSWORD_FILE": str(self.password_file)}


def default_home() -> Path:
    """Give the home folder of the user's own local server."""
    from platformdirs import user_data_path

    return user_data_path("tracestore") / "neo4j"


def _end_with_parent() -> None:
    """Ask the kernel to end this process when its parent goes, however that happens."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class LocalServer:
    """A server in one home folder. Several processes may start and stop it: a lock keeps them apart."""

    def __init__(self, home: Path | None = None, version: str = DEFAULT_VERSION, *, tied: bool = False) -> None:
        self.home = (home or default_home()).absolute()
        self.release: Release = release_of(version)
        self._tied = tied  # on Linux, the server ends when the thread that started it does
        self._process: subprocess.Popen[bytes] | None = None  # set when this object started it

    @property
    def password_file(self) -> Path:
        """The password, one line, mode 0600."""
        return self.home / "password"

    @property
    def log_file(self) -> Path:
        """What the server said."""
        return self.home / "logs" / "console.log"

    def _lock(self) -> FileLock:
        from filelock import FileLock

        self._make_home()
        return FileLock(self.home / "lock", timeout=_READY_S + _STOP_S)

    def start(self, *, port: int = 0, sizes: Sizes | None = None) -> Running:
        """Start it unless it runs already; give it when it answers.

        `port` 0 takes the port of last time when it is free, else any. Raises StoreUnavailableError with the end of the log.
        """
        with self._lock():
            if (running := self.status()) is not None:
                return running
            jars, java = fetch_jars(self.release.version), java_for(self.release)
            chosen = sizes or Sizes()
            port = port or self._free_port()
            self._configure(port, chosen)
            self._set_password(java, jars)
            process = self._launch(java, jars, chosen)
            self._process = process
            running = Running(f"bolt://127.0.0.1:{port}", "neo4j", self.password_file, process.pid, self.release.version)
            try:
                self._write("server.json", json.dumps({"pid": process.pid, "port": port, "version": self.release.version}))
                self._await_ready(running, process)
            except BaseException:
                process.kill()
                process.wait()
                raise
            return running

    def status(self) -> Running | None:
        """Give the server when its process is there; None when it is not (a stale note counts for nothing)."""
        note = self._note()
        if not note or not self._is_ours(note["pid"]):
            return None
        return Running(f"bolt://127.0.0.1:{note['port']}", "neo4j", self.password_file, note["pid"], note["version"])

    def stop(self) -> bool:
        """Stop it cleanly, by force after a minute; tell whether it ran."""
        with self._lock():
            running = self.status()
            if running is None:
                return False
            os.kill(running.pid, signal.SIGTERM)
            if not self._await_exit(running.pid, _STOP_S):
                self.kill()
            return True

    def kill(self) -> bool:
        """End the process at once, as a power cut would; tell whether it ran."""
        running = self.status()
        if running is None:
            return False
        os.kill(running.pid, signal.SIGKILL)
        self._await_exit(running.pid, _STOP_S)
        return True

    def admin(self, *arguments: str, max_heap: str = "512m") -> str:
        """Run the server's admin tool while the server is down; give what it said. Raises StoreUnavailableError when it fails."""
        jars, java = fetch_jars(self.release.version), java_for(self.release)
        return self._admin(java, jars, arguments, max_heap)

    def import_full(self, folder: Path, *, overwrite: bool = False) -> str:
        """Make the database from the files of `tracestore export --format neo4j-import`; give what the tool said at its end.

        Raises BadInputError when the folder is no such export or the server runs, StoreUnavailableError when the tool refuses:
        a database is there already (unless `overwrite`), or a file is damaged.
        """
        if not (folder / "import.args").is_file():
            raise BadInputError(f"{folder} holds no import.args; make it with: tracestore export --format neo4j-import")
        with self._lock():
            if self.status() is not None:
                raise BadInputError("the server runs, and an import needs it stopped: stop it first")
            jars, java = fetch_jars(self.release.version), java_for(self.release)
            self._configure(0, Sizes())
            self._set_password(java, jars)
            more = ("--overwrite-destination",) if overwrite else ()
            return self._admin(java, jars, (*_IMPORT, *more, "neo4j", "@import.args"), "1g", folder)

    def _admin(self, java: Path, jars: Path, arguments: tuple[str, ...], max_heap: str, folder: Path | None = None) -> str:
        command = [str(java), f"-Xmx{max_heap}", *_ADMIN_OPENS, "-cp", f"{jars}/*", "org.neo4j.cli.AdminTool", *arguments]
        places = {"NEO4J_HOME": str(self.home), "NEO4J_CONF": str(self.home / "conf")}
        done = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode != 0:
            raise StoreUnavailableError(f"neo4j-admin {arguments[0]} failed: {_reason(done.stderr or done.stdout)}")
        return done.stdout

    def _free_port(self) -> int:
        for port in (self._note().get("port", 0), 0):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return int(probe.getsockname()[1])
        raise StoreUnavailableError("no free port on the loopback address")

    def _make_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)

    def _note(self) -> dict[str, Any]:
        """Read what the last start noted; nothing when it cannot be read."""
        try:
            found = json.loads((self.home / "server.json").read_text(encoding="utf-8"))
            return {"pid": int(found["pid"]), "port": int(found["port"]), "version": str(found["version"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _write(self, name: str, text: str) -> None:
        """Write a small private file in one step."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)

    def _configure(self, port: int, sizes: Sizes) -> None:
        folders = {f"server.directories.{name}": str(self.home / name) for name in ("data", "logs", "run", "plugins", "import")}
        settings = {
            **folders,
            "server.directories.transaction.logs.root": str(self.home / "data" / "transactions"),
            "server.default_listen_address": "127.0.0.1",
            "server.bolt.listen_address": f"127.0.0.1:{port}",
            "server.bolt.advertised_address": f"127.0.0.1:{port}",
            "server.http.enabled": "false",
            "server.https.enabled": "false",
            "dbms.security.auth_enabled": "true",
            "dbms.usage_report.enabled": "false",
            "server.memory.pagecache.size": sizes.page_cache,
            "db.tx_log.preallocate": "false",
            **sizes.settings,
        }
        self._make_home()
        for folder in folders.values():
            Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write("conf/neo4j.conf", "".join(f"{name}={value}\n" for name, value in settings.items()))

    def _set_password(self, java: Path, jars: Path) -> None:
        """Make the password before the first start. The admin tool reads it from an argument file, never from its command line."""
        if self.password_file.exists() and (self.home / "data" / "dbms").is_dir():
            return
        self._write("password", secrets.token_hex(16) + "\n")
        self._admin(java, jars, ("dbms", "set-initial-password", f"@{self.password_file}"), "128m")

    def _launch(self, java: Path, jars: Path, sizes: Sizes) -> subprocess.Popen[bytes]:
        places = (f"--home-dir={self.home}", f"--config-dir={self.home / 'conf'}", "--console-mode")
        memory = (f"-Xms{sizes.heap}", f"-Xmx{sizes.heap}")
        command = [str(java), *memory, *self.release.options, *sizes.java_options, "-cp", f"{jars}/*", self.release.main_class, *places]
        self.log_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                start_new_session=True,
                preexec_fn=_end_with_parent if self._tied and sys.platform == "linux" else None,
            )

    def _await_ready(self, running: Running, process: subprocess.Popen[bytes]) -> None:
        from tracestore.store.neo4j.connection import answers

        password = self.password_file.read_text(encoding="utf-8").strip()
        deadline = time.monotonic() + _READY_S
        while not answers(running.uri, running.username, password):
            if process.poll() is not None:
                raise StoreUnavailableError(f"Neo4j {self.release.version} ended while starting: {self._last_words()}")
            if time.monotonic() > deadline:
                raise StoreUnavailableError(f"Neo4j {self.release.version} did not answer in {_READY_S:.0f} s: {self._last_words()}")
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) + f" (all of it: {self.log_file})"

    def _is_ours(self, pid: int) -> bool:
        """Does this process run, and is it a server with our home folder? Process numbers are used again after a restart."""
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            command = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
        return f"--home-dir={self.home} " in command

    def _await_exit(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._is_ours(pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        if self._process is not None and self._process.pid == pid:
            self._process.wait()
        return True


def _reason(told: str) -> str:
    """Find the sentence in what the admin tool said: 5.26 ends with it, 2026.x puts it below "Command Failed"."""
    lines = [line.strip() for line in told.splitlines() if line.strip(" -") and not line.startswith(("\tat ", "    at ", "\t..."))]
    if "Command Failed" in lines[:-1]:
        return lines[lines.index("Command Failed") + 1]
    return lines[-1] if lines else "no message"


def main(arguments: list[str] | None = None) -> int:
    """Start, stop, look at or fill the local server from the command line; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tracestore.store.neo4j.local", description="A Neo4j server on this machine, without Docker."
    )
    parser.add_argument("action", choices=("start", "stop", "status", "import"))
    parser.add_argument("folder", type=Path, nargs="?", help="for import: what `tracestore export --format neo4j-import` wrote")
    parser.add_argument("--overwrite", action="store_true", help="for import: in place of the database that is there")
    parser.add_argument("--home", type=Path, help="folder of the server (default: in the user's data folder)")
    parser.add_argument("--version", choices=tuple(RELEASES), default=DEFAULT_VERSION, help=f"release (default: {DEFAULT_VERSION})")
    parser.add_argument("--port", type=int, default=0, help="Bolt port on 127.0.0.1 (default: that of last time, else any)")
    parser.add_argument("--heap", default="1g", help="memory of the server (default: 1g)")
    parser.add_argument("--page-cache", default="256m", help="memory for the graph's files (default: 256m)")
    chosen = parser.parse_args(arguments)
    server = LocalServer(chosen.home, chosen.version)
    try:
        if chosen.action == "stop":
            sys.stderr.write("stopped\n" if server.stop() else "it was not running\n")
            return 0
        if chosen.action == "import":
            if chosen.folder is None:
                parser.error("import needs the folder that `tracestore export --format neo4j-import` wrote")
            server.import_full(chosen.folder, overwrite=chosen.overwrite)
            sys.stderr.write("imported; start the server, then: tracestore store migrate\n")
            return 0
        starting = chosen.action == "start"
        running = server.start(port=chosen.port, sizes=Sizes(chosen.heap, chosen.page_cache)) if starting else server.status()
    except TracestoreError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if running is None:
        sys.stderr.write(f"not running (home: {server.home})\n")
        return StoreUnavailableError.exit_code
    sys.stderr.write(f"Neo4j {running.version} answers at {running.uri} (process {running.pid}, home {server.home})\n")
    sys.stdout.write("".join(f"export {name}={shlex.quote(value)}\n" for name, value in running.environment.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
