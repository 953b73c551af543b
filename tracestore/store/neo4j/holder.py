"""Who holds a lease: this process on this machine, and whether another holder of this machine is still alive.

On Linux a dead process is recognised at once, so that a killed loader's work is taken over without waiting for its lease to end.
Elsewhere, and for holders on other machines, only the end of the lease counts.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holder:
    """A process: `machine` (with its boot and process namespace, where known) and `process` (number and start)."""

    machine: str
    process: str


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _start(pid: int) -> str | None:
    """Give the start of a process in clock ticks since boot; None when it is gone (a zombie is gone) or cannot be told."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in ("Z", "X") else fields[19]


def _machine() -> str:
    boot = _read("/proc/sys/kernel/random/boot_id") or "unknown"
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = "unknown"
    return f"{platform.node()}/{boot}/{namespace}"


def this_process() -> Holder:
    """Describe this process."""
    return Holder(_machine(), f"{os.getpid()}:{_start(os.getpid()) or 'unknown'}")


def is_dead(holder: Holder) -> bool:
    """Is this holder certainly gone? Only a Linux process of this very machine can be told to be."""
    if holder.machine != _machine() or "unknown" in holder.machine + holder.process:
        return False
    pid, _, start = holder.process.partition(":")
    return pid.isdigit() and _start(int(pid)) != start
