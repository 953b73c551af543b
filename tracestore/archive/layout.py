"""Where an archive keeps its files, and how they are written so that neither a crash nor an onlooker finds half of one.

    ARCHIVE/packages/<package_id>/manifest.json, <table>.parquet     complete packages
    ARCHIVE/packages/.tmp-*                                          a package being written; its writer holds a lock on the folder
    ARCHIVE/packages/.removed-*                                      a package that compaction replaced, being deleted
    ARCHIVE/tombstones/<id>.json                                     forgotten trace ids
    ARCHIVE/redaction.key                                            key of the hashes under --no-text, when it is kept here
    ARCHIVE/.lock, ARCHIVE/.compact.lock                             held while folders are renamed; while compacting

Folders are private to the user (0700) and files too (0600), whatever the umask. Where the archive's own folder already exists its mode is
left as it is: everything inside is private.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracestore.errors import ArchiveError, ResourceError, TracestoreError

if TYPE_CHECKING:
    from filelock import FileLock

TEMPORARY: Final = ".tmp-"
REMOVED: Final = ".removed-"
MANIFEST: Final = "manifest.json"
_PACKAGE_ID: Final = re.compile(r"(?P<stamp>\d{8}T\d{6}\.\d{6})-(?P<count>\d{6})-[0-9a-f]{16}")
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Layout:
    """Paths of one archive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.packages = root / "packages"
        self.tombstones = root / "tombstones"
        self.key_file = root / "redaction.key"

    def create(self) -> None:
        """Make the folders; raise ArchiveError when that is impossible."""
        with storage_errors(f"the archive {self.root}"):
            for folder in (self.root, self.packages, self.tombstones):
                make_private_folder(folder)

    def lock(self) -> FileLock:
        """Give the lock to hold while folders are made visible or taken away: milliseconds."""
        return self._lock(".lock")

    def compact_lock(self) -> FileLock:
        """Give the lock to hold for a whole compaction."""
        return self._lock(".compact.lock")

    def _lock(self, name: str) -> FileLock:
        from filelock import FileLock

        return FileLock(self.root / name, mode=0o600)


def make_private_folder(path: Path) -> None:
    """Make a folder (and those above it) with mode 0700 unless it exists."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if path.is_dir():  # another process was faster
            return
        raise
    path.chmod(0o700)  # the umask may have taken bits of the owner


def open_private(path: Path) -> int:
    """Create a file with mode 0600 that must not exist yet; give its descriptor."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def write_private(path: Path, data: bytes) -> None:
    """Write a new private file and have it on disk on return."""
    with os.fdopen(open_private(path), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a private file under a temporary name, then rename it: it is there whole or not at all."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        write_private(temporary, data)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have a folder's entries on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def temporary_package(layout: Layout) -> Iterator[Path]:
    """Give a locked temporary folder beside the packages; what is still there on leaving is deleted."""
    with layout.lock():  # nobody may take it for a leftover between the next two lines
        path = layout.packages / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(6)}"
        make_private_folder(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def is_abandoned(path: Path) -> bool:
    """Tell whether no living process holds a temporary folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def publish(layout: Layout, temporary: Path, package_id: str) -> None:
    """Make a finished temporary folder a package. The caller holds the lock."""
    sync_folder(temporary)
    temporary.rename(layout.packages / package_id)
    sync_folder(layout.packages)


def remove_package(layout: Layout, package_id: str) -> None:
    """Take a package away: invisible at once, then deleted. The caller holds the lock."""
    trash = layout.packages / f"{REMOVED}{package_id}"
    if trash.exists():
        shutil.rmtree(trash)
    (layout.packages / package_id).rename(trash)
    sync_folder(layout.packages)
    shutil.rmtree(trash)


def new_package_id(layout: Layout, token: str) -> str:
    """Name a package so that names sort in the order of creation, even when the clock is set back. The caller holds the lock."""
    stamp, count = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f"), 0
    latest = max(filter(None, map(_PACKAGE_ID.fullmatch, os.listdir(layout.packages))), key=lambda match: match.group(), default=None)
    if latest is not None and stamp <= latest["stamp"]:
        stamp, count = latest["stamp"], int(latest["count"]) + 1
    return f"{stamp}-{count:06d}-{token}"


@contextmanager
def storage_errors(what: str, lost: str = "") -> Iterator[None]:
    """Turn failures of the disk into errors of this library; `lost` says what was not kept."""
    try:
        yield
    except TracestoreError:
        raise
    except OSError as error:
        tail = f" {lost}" if lost else ""
        if error.errno in FULL:
            raise ResourceError(f"No room to write {what}: {error.strerror}. Free some space and run it again.{tail}") from error
        reason = error.strerror or type(error).__name__
        raise ArchiveError(f"Cannot use {what}: {reason}. Check the path, its permissions and the disk.{tail}") from error
