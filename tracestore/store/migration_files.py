"""The schema changes that this version brings for an engine, and what a store still lacks of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Final

from tracestore.errors import StoreVersionError

_NAME: Final = re.compile(r"^V(\d{3})__(\w+)\.cypher$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: its number, name and text."""

    version: int
    name: str
    text: str

    @property
    def file_name(self) -> str:
        """`V001__schema`."""
        return f"V{self.version:03d}__{self.name}"

    @property
    def checksum(self) -> str:
        """Hash the text (sha256)."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """Split the text into statements; lines that begin with // are comments."""
        body = "\n".join(line for line in self.text.splitlines() if not line.startswith("//"))
        return [statement for part in body.split(";") if (statement := part.strip())]


def known_migrations(engine: str) -> list[Migration]:
    """Read `cypher/migrations/<engine>/V<number>__<name>.cypher`, in order."""
    folder = package_files("tracestore.cypher").joinpath("migrations", engine)
    found = []
    for entry in folder.iterdir():
        if match := _NAME.match(entry.name):
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def still_missing(known: Sequence[Migration], applied: Mapping[int, tuple[str, str]], store: str) -> list[Migration]:
    """List what has not been applied. `applied`: number -> (name, checksum). Raises StoreVersionError: a newer store, a changed step."""
    by_version = {migration.version: migration for migration in known}
    for number, (name, checksum) in sorted(applied.items()):
        if number not in by_version:
            raise StoreVersionError(f"{store} has migration {number} ({name}), which this version does not know: upgrade tracestore")
        if by_version[number].checksum != checksum:
            raise StoreVersionError(
                f"migration {number} ({name}) of {store} is not the one in this version; "
                f"build the store anew: tracestore store rebuild --archive DIR --store {store}"
            )
    return [migration for migration in known if migration.version not in applied]
