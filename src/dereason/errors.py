"""The one exception that users see: a cause and its mend, on one line.

Everything a user can put right (a bad row, a missing model, a full disk, a recipe that asks for a GPU
that is not there) is raised as a :class:`DereasonError`. The command line prints it without a traceback;
any other exception is a bug and keeps its traceback under ``--debug``.
"""

from __future__ import annotations

import errno


class DereasonError(Exception):
    """An error with a known cause.

    Args:
        cause: what is wrong, naming the file, row or field.
        mend: what to do about it, as an instruction.
    """

    def __init__(self, cause: str, mend: str = "") -> None:
        self.cause = " ".join(cause.split())
        self.mend = " ".join(mend.split())
        super().__init__(self.line())

    def line(self) -> str:
        """The message as one line of text."""
        return f"{self.cause} — {self.mend}" if self.mend else self.cause


def out_of_memory(error: BaseException) -> bool:
    """Does this error say that memory ran out, on the CPU or on a GPU?"""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error) for words in ("can't allocate memory", "out of memory"))


def disk_full(error: BaseException) -> bool:
    """Does this error say that a file could not be written because the disk, or the user's quota of it, is full?

    safetensors names the cause in its text only, torch's writer not at all: it finds fewer bytes than it wrote.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    signs = ("No space left on device", "os error 28", "Disk quota exceeded", "failed writing file", "unexpected pos")
    return any(words in str(error) for words in signs)


def refused_path(error: BaseException) -> str | None:
    """What the system says of a path that it refuses (no permission, too long a name); None for other errors."""
    refused = {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.EIO,
    }
    if isinstance(error, OSError) and error.errno in refused and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None
