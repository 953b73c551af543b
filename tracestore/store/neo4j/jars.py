"""The Neo4j server's own jars, fetched with Maven into a cache, and a Java that can run them.

1. Find every Java that this machine shows: the environment (JAVA_HOME and its variants), the PATH, and the folders beside those found.
2. Take the oldest one that the wanted version of Neo4j runs on.
3. Fetch the jars once into the user's cache: under a lock, into a temporary folder, renamed when complete.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracestore.errors import StoreUnavailableError

_JAVA_VARIABLE: Final = re.compile(r"^(JAVA|JDK|JRE)\w*HOME\w*$")
_RELEASE: Final = re.compile(r'^JAVA_VERSION="(?:1\.)?(\d+)', re.MULTILINE)
_FETCH_SECONDS: Final = 900

_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tracestore</groupId><artifactId>neo4j-server-jars</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.neo4j</groupId><artifactId>neo4j</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.neo4j.app</groupId><artifactId>neo4j-server</artifactId><version>{version}</version></dependency>
  </dependencies>
</project>
"""


@dataclass(frozen=True, slots=True)
class Release:
    """A Neo4j release that was tested: its main class, the Java versions it runs on and the options it asks of them."""

    version: str
    main_class: str
    javas: tuple[int, ...]
    options: tuple[str, ...] = ()


_OPENS: Final = tuple(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in ("java.nio", "java.io", "sun.nio.ch", "java.util.concurrent"))
_COMMON: Final = ("-Djol.skipHotspotSAAttach=true", "-Dfile.encoding=UTF-8", *_OPENS, "--enable-native-access=ALL-UNNAMED")

RELEASES: Final = {
    "5.26.30": Release("5.26.30", "org.neo4j.server.CommunityEntryPoint", (17, 21), _COMMON),
    "2026.08.1": Release("2026.08.1", "org.neo4j.server.Neo4jCommunity", (21, 25), (*_COMMON, "--add-modules=jdk.incubator.vector")),
}
DEFAULT_VERSION: Final = "5.26.30"


def cache_folder() -> Path:
    """Give the folder that holds fetched servers: TRACESTORE_CACHE, else the user's cache."""
    if chosen := os.environ.get("TRACESTORE_CACHE"):
        return Path(chosen) / "neo4j"
    from platformdirs import user_cache_path

    return user_cache_path("tracestore") / "neo4j"


def _homes(environment: Mapping[str, str]) -> Iterator[Path]:
    for name, value in sorted(environment.items()):
        if _JAVA_VARIABLE.match(name) and Path(value).is_absolute():
            yield Path(value)
    if found := shutil.which("java", path=environment.get("PATH")):
        yield Path(found).resolve().parent.parent


def _java_version(home: Path) -> int | None:
    """Read the feature version from a Java home's `release` file; ask the program itself where that file is missing."""
    program = home / "bin" / "java"
    if not os.access(program, os.X_OK):
        return None
    release = home / "release"
    text = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
    if not text:
        try:
            told = subprocess.run(
                [program, "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        match = re.search(r"java\.specification\.version = (?:1\.)?(\d+)", told.stderr)
    else:
        match = _RELEASE.search(text)
    return int(match[1]) if match else None


def find_javas(environment: Mapping[str, str] | None = None) -> dict[int, Path]:
    """Find Java homes by feature version: named by the environment first, then what stands beside them."""
    named = list(_homes(os.environ if environment is None else environment))
    beside = [folder for home in named if home.parent.is_dir() for folder in sorted(home.parent.iterdir()) if folder.is_dir()]
    found: dict[int, Path] = {}
    for home in (*named, *beside):
        version = _java_version(home)
        if version is not None:
            found.setdefault(version, home)
    return found


def java_for(release: Release) -> Path:
    """Give the `java` program for a release. Raises StoreUnavailableError naming what was found and what is needed."""
    found = find_javas()
    for version in release.javas:
        if version in found:
            return found[version] / "bin" / "java"
    have = ", ".join(str(version) for version in sorted(found)) or "none"
    needed = " or ".join(str(version) for version in release.javas)
    raise StoreUnavailableError(
        f"Neo4j {release.version} needs Java {needed} and Java {have} was found: install one, or set JAVA_HOME to it"
    )


def release_of(version: str) -> Release:
    """Give a release by its version. Raises StoreUnavailableError for one that was never tested."""
    if version not in RELEASES:
        raise StoreUnavailableError(f"Neo4j {version} was not tested as a local server; known are {', '.join(RELEASES)}")
    return RELEASES[version]


def fetch_jars(version: str = DEFAULT_VERSION) -> Path:
    """Give the folder of a release's jars, fetching them when they are not there yet (about 130 MB).

    Raises StoreUnavailableError when Maven is missing or fails.
    """
    from filelock import FileLock

    folder = cache_folder()
    jars = folder / version / "lib"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise StoreUnavailableError(f"the jars of Neo4j {version} are not in {folder} and Maven (mvn), which fetches them, was not found")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{version}.lock", timeout=_FETCH_SECONDS):
        if not jars.is_dir():
            _fetch(maven, version, folder)
    return jars


def _fetch(maven: str, version: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{version}.", dir=folder) as temporary:
        work = Path(temporary)
        (work / "pom.xml").write_text(_POM.format(version=version), encoding="utf-8")
        command = [maven, "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=made/lib"]
        try:
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise StoreUnavailableError(f"Maven did not fetch Neo4j {version} within {_FETCH_SECONDS} s; try again") from None
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines()
            reason = lines[0] if lines else "no message"
            raise StoreUnavailableError(f"Maven could not fetch Neo4j {version} ({reason}); check the network and Maven's settings")
        (work / "made").rename(folder / version)
