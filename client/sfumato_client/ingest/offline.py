"""A process without a network: from `leave_network` on the system refuses it every socket, and so all that it starts.

A seccomp filter (seccomp(2), Linux on x86-64 and aarch64) needs no rights and works in containers. It refuses, too, to
take a socket of another process, and to read or trace one. Decoders and networks read what anybody may have written.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

from sfumato_common.supervise import run_to_end

_NO_NEW_PRIVILEGES, _SET_FILTER, _ALL_THREADS = 38, 1, 1
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with EPERM
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: LD W ABS, JEQ K, JGE K, RET K
_FOREIGN = 0x40000000  # numbers from here on are those of the x32 interface
# by machine: its audit number, that of seccomp, then what is refused: socket, ptrace, process_vm_readv and _writev,
# io_uring_setup (which makes sockets, too), pidfd_getfd
_CALLS = {
    "x86_64": (0xC000003E, 317, (41, 101, 310, 311, 425, 438)),
    "aarch64": (0xC00000B7, 277, (198, 117, 270, 271, 425, 438)),
}
_INTERNET, _STREAM = 2, 1
_SECONDS = 600.0  # a slow machine imports for minutes


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def leave_network() -> bool:
    """Whether this process and all its threads are without a network from now on; there is no way back."""
    calls = _CALLS.get(platform.machine()) if sys.platform == "linux" else None
    if calls is None:
        return False
    audit, seccomp, refused = calls
    libc = ctypes.CDLL(None, use_errno=True)
    code = _filter(audit, refused)
    program = _Program(len(code) // 8, code)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(
        ctypes.c_long(seccomp), ctypes.c_ulong(_SET_FILTER), ctypes.c_ulong(_ALL_THREADS), ctypes.byref(program)
    ):
        return False
    return not has_network()


def has_network() -> bool:
    """Whether this process can open a socket of the internet."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.socket(_INTERNET, _STREAM, 0)
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor >= 0)


def can_leave_network() -> bool:
    """Whether processes of this machine can: one is started, and tries."""
    command, environment = [sys.executable, "-m", __name__], dict(os.environ)
    return run_to_end(command, environment, _SECONDS)[0] == 0


def _filter(audit: int, refused: tuple[int, ...]) -> bytes:
    """The classic BPF program: another machine's calls, those of x32 and `refused` are refused, all others allowed."""
    count = len(refused)
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 0, count + 3, audit), (_LOAD, 0, 0, 0), (_AT_LEAST, count + 1, 0, _FOREIGN)]
    steps += [(_EQUAL, count - number, 0, call) for number, call in enumerate(refused)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


if __name__ == "__main__":
    sys.exit(0 if leave_network() else 1)
