"""What keeps a check from harm, on Linux and without root: other files, the network, processes that stay behind.

Three layers, each used where the kernel gives it:

namespaces  (user, mount, network, process ids) all file systems read-only but a small one in memory; no network; every
            process that a call started ends with it
Landlock    (from Linux 6.2 on) no writing outside one folder, no TCP, no signals to processes outside
seccomp     no sockets, no io_uring, no reading or writing of other processes' memory

What a worker needs is that files and network are each guarded by at least one of them, which :func:`holds` says.
Everything goes through the C library, by its public numbers; nothing here is imported from a package.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FILE_LIMIT = 64
"""MiB that one file of a check may have."""
FOLDER_LIMIT = 256
"""MiB that all its files together may have, where the folder lies in memory (with namespaces)."""
OPEN_FILES = 256
PROCESSES = 256
MIB = 1024 * 1024

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID_NODEV, _MS_PRIVATE_ALL = 2 | 4, 0x40000 | 0x4000
_PR_DEATHSIG, _PR_CAP_DROP, _PR_SUBREAPER, _PR_NO_NEW_PRIVS, _PR_SECCOMP = 1, 24, 36, 38, 22
_SYS_MOUNT_SETATTR = 442
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_TRUNCATE = 3
"""The first version that guards truncation, which is needed."""

_DENIED = {
    # (audit number of the architecture): socket, ptrace, process_vm_readv, process_vm_writev, io_uring_setup, unshare,
    # setns, mount
    "x86_64": (0xC000003E, (41, 101, 310, 311, 425, 272, 308, 165)),
    "aarch64": (0xC00000B7, (198, 117, 270, 271, 425, 97, 268, 40)),
}


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    """A function of the C library. Raises OSError where it fails."""
    found = getattr(_libc(), name, None)
    if found is None:
        raise OSError(f"this system has no {name}")
    found.restype = ctypes.c_long
    result = int(found(*arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def _prctl(option: int, *arguments: int) -> None:
    _call("prctl", option, *(ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]))


def separate(scratch: Path) -> bool:
    """Move this process into namespaces of its own, where it is the first process, and make all but a folder read-only.

    The process that called goes on as a child of itself: the one outside only waits for it.

    Args:
        scratch: an empty folder, which becomes a file system in memory.

    Returns:
        Whether it worked; where it did not, nothing has changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    trial = os.fork()  # where a later step fails, an earlier one could not be taken back
    if not trial:
        os._exit(not _enter(scratch))
    if os.waitpid(trial, 0)[1] or not _enter(scratch):
        return False
    child = os.fork()
    if child:
        for descriptor in range(64):  # the pipes are the child's
            with contextlib.suppress(OSError):
                os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(abs(code))
    _prctl(_PR_DEATHSIG, signal.SIGKILL)
    return True


def _enter(scratch: Path) -> bool:
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEWUSER | _NEWNS | _NEWNET | _NEWPID | _NEWIPC)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        _call("mount", None, b"/", None, ctypes.c_ulong(_MS_PRIVATE_ALL), None)
        read_only = struct.pack("4Q", 1, 0, 0, 0)  # attributes to set: read-only
        _call("syscall", _SYS_MOUNT_SETATTR, -100, b"/", 0x8000, read_only, ctypes.c_size_t(len(read_only)))
        options = f"size={FOLDER_LIMIT}m,nr_inodes=20000,mode=0700".encode()
        _call("mount", b"tmpfs", os.fsencode(scratch), b"tmpfs", ctypes.c_ulong(_MS_NOSUID_NODEV), options)
    except OSError:
        return False
    return True


def adopt() -> None:
    """Take in the processes that children leave behind, so that they can be ended."""
    with contextlib.suppress(OSError):
        _prctl(_PR_SUBREAPER, 1)


def landlock_version() -> int:
    """The kernel's version of Landlock, 0 where it has none."""
    try:
        return _call("syscall", _SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    except OSError:
        return 0


def can_filter() -> bool:
    """Whether this system's calls can be filtered by :func:`confine`."""
    return sys.platform.startswith("linux") and platform.machine() in _DENIED and Path("/proc/self/status").exists()


def confine(folder: Path, *, separated: bool) -> None:
    """Give up, for this process and all that it starts, whatever is no part of computing a verdict.

    Args:
        folder: the one folder where it may write.
        separated: whether :func:`separate` worked.

    What the kernel does not have is left out; :func:`holds` has said so before.
    """
    for which, limit in (
        (resource.RLIMIT_FSIZE, FILE_LIMIT * MIB),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        # Outside a namespace it counts all processes of the user.
        *([(resource.RLIMIT_NPROC, PROCESSES)] if separated else []),
    ):
        hard = resource.getrlimit(which)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(which, (limit, limit))
    if not sys.platform.startswith("linux"):
        return
    for capability in range(64):
        with contextlib.suppress(OSError):
            _prctl(_PR_CAP_DROP, capability)
    none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    with contextlib.suppress(OSError):
        _call("capset", *none)
    _prctl(_PR_NO_NEW_PRIVS, 1)
    version = landlock_version()
    if version >= _LANDLOCK_TRUNCATE:
        _landlock(folder, version)
    if can_filter():
        _filter()


def _landlock(folder: Path, version: int) -> None:
    writing = sum(1 << bit for bit in (1, *range(4, 15))) | (1 << 15 if version >= 5 else 0)
    network = 3 if version >= 4 else 0
    scopes = 3 if version >= 6 else 0
    rules = struct.pack("3Q", writing, network, scopes)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _call("syscall", _SYS_LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    device = sum(1 << bit for bit in (1, 14)) | (1 << 15 if version >= 5 else 0)
    for path, rights in ((folder, writing), (Path("/dev/null"), device), (Path("/dev/zero"), device)):
        with contextlib.suppress(FileNotFoundError):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _call("syscall", _SYS_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, place), 0)
            os.close(place)
    _call("syscall", _SYS_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _filter() -> None:
    """A seccomp filter that answers the calls of ``_DENIED`` with "permission denied"."""
    architecture, denied = _DENIED[platform.machine()]
    allow, refuse = 0x7FFF0000, 0x00050000 | 13
    instruction = struct.Struct("HBBI")

    def unless(test: int, operand: int, result: int) -> bytes:
        """Go on where a test fails, else answer."""
        return instruction.pack(test, 0, 1, operand) + instruction.pack(0x06, 0, 0, result)

    equal, above = 0x15, 0x35
    program = instruction.pack(0x20, 0, 0, 4) + instruction.pack(equal, 1, 0, architecture)
    program += instruction.pack(0x06, 0, 0, refuse)
    program += instruction.pack(0x20, 0, 0, 0)
    program += unless(above, 0x40000000, refuse)  # x32 has other numbers
    program += b"".join(unless(equal, number, refuse) for number in denied)
    program += instruction.pack(0x06, 0, 0, allow)
    held = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // instruction.size, ctypes.addressof(held))
    head = ctypes.create_string_buffer(header, len(header))
    _prctl(_PR_SECCOMP, 2, ctypes.addressof(head))


def holds(separated: bool) -> list[str]:
    """What :func:`confine` cannot guard on this system, in words; nothing where it guards all."""
    missing = []
    if not separated and landlock_version() < _LANDLOCK_TRUNCATE:
        missing.append("files outside its folder (no user namespaces, and no Landlock of Linux 6.2 or later)")
    if not separated and not can_filter():
        missing.append("the network (no user namespaces, and no seccomp filter)")
    return missing


def end_descendants() -> None:
    """End every process below this one, however they were started, and wait for them."""
    if os.getpid() == 1:  # in a namespace of its own: all others there are below it
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        _reap()
        return
    deadline = time.monotonic() + 5
    while (found := list(_descendants(os.getpid()))) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        _reap(block=False)


def _reap(block: bool = True) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0 if block else os.WNOHANG)[0]:
            pass


def _descendants(process: int) -> Iterator[int]:
    """The processes below one, by /proc."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents[int(entry.name)] = int(Path(entry.path, "stat").read_text().rsplit(")", 1)[1].split()[1])
    new = {process}
    while new := {child for child, parent in parents.items() if parent in new}:
        yield from new
