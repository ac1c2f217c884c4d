"""Stop a process tree at its N-th mutating system call, whichever process or thread makes it (Linux on x86-64).

``strace -e inject=…:when=N`` counts separately in every thread, so that points in helper threads and in child
processes hide behind the main thread's, and it reports every system call.  Here a seccomp filter, installed by the
program when the operation starts, hands only mutating calls to a ptrace loop, which counts over the whole tree.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

#: Mutating system calls of x86-64 by number: name, and which argument holds a path (n) or an open file (-1 - n).
_CALLS: Final[dict[int, tuple[str, int]]] = {
    1: ("write", -1),
    18: ("pwrite64", -1),
    20: ("writev", -1),
    296: ("pwritev", -1),
    328: ("pwritev2", -1),
    40: ("sendfile", -1),
    326: ("copy_file_range", -3),
    16: ("ioctl", -1),
    74: ("fsync", -1),
    75: ("fdatasync", -1),
    26: ("msync", -9),
    76: ("truncate", 0),
    77: ("ftruncate", -1),
    285: ("fallocate", -1),
    2: ("open", 0),
    257: ("openat", 1),
    85: ("creat", 0),
    82: ("rename", 1),
    264: ("renameat", 3),
    316: ("renameat2", 3),
    86: ("link", 1),
    265: ("linkat", 3),
    87: ("unlink", 0),
    263: ("unlinkat", 1),
    83: ("mkdir", 0),
    258: ("mkdirat", 1),
    84: ("rmdir", 0),
    88: ("symlink", 1),
    266: ("symlinkat", 2),
    90: ("chmod", 0),
    91: ("fchmod", -1),
    268: ("fchmodat", 1),
}
_FICLONE: Final = 0x40049409
_ARCH_X86_64: Final = 0xC000003E
_PTRACE_CONT, _PTRACE_GETREGS, _PTRACE_SETREGS, _PTRACE_SEIZE = 7, 12, 13, 0x4206
_OPTIONS: Final = 0x2 | 0x4 | 0x8 | 0x80 | 0x100000  # fork, vfork, clone, seccomp; EXITKILL
_EVENT_SECCOMP: Final = 7
_WALL: Final = 0x40000000 if sys.platform == "linux" else 0
_REGISTERS: Final = 27
_RAX, _ORIG_RAX = 10, 15
_ARGUMENTS: Final = (14, 13, 12, 7)  # rdi, rsi, rdx, r10


@dataclass(frozen=True)
class Syscall:
    """A mutating system call that is about to happen.

    Attributes:
        number: Counted from 1 over the whole process tree.
        pid: The process or thread that makes it.
        main: True if the process is the traced program itself, not a child of it.
    """

    number: int
    name: str
    path: str
    pid: int
    main: bool

    def __str__(self) -> str:
        return f"#{self.number} {self.name}({self.path}){'' if self.main else ' in a child process'}"


@dataclass
class Outcome:
    """How a traced program ended.

    Attributes:
        status: Its exit status; negative is the signal that killed it.
        calls: Every mutating call seen, in order.
        hit: The call at which the fault was injected, if it was reached.
        acks: What it acknowledged, in order.
        stderr: What it wrote there.
    """

    status: int = -1
    calls: list[Syscall] = field(default_factory=list)
    hit: Syscall | None = None
    acks: list[str] = field(default_factory=list)
    stderr: str = ""


class Tracee:
    """The traced program's own end: starts the counting, reports what was acknowledged."""

    def __init__(self, ack_fd: int, *, traced: bool) -> None:
        self._ack_fd = ack_fd
        self._traced = traced

    def ack(self, what: str) -> None:
        """Tell the tester that ``what`` was promised to be kept; the message is out when this returns."""
        os.write(self._ack_fd, (what + "\n").encode())

    def arm(self) -> None:
        """From here on mutating calls are counted, in all threads and in every process started from now on."""
        if self._traced:
            _install_filter()


#: What to do at a call: None lets it pass, "kill" ends the whole tree, "kill-one" the caller, an errno fails it.
Fault = Callable[[Syscall], "str | int | None"]


def unavailable() -> str | None:
    """Why this machine cannot trace, or None if it can.  As for ``run``, there may be no threads."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"needs Linux on x86-64 (this is {sys.platform} on {platform.machine()})"
    try:
        outcome = run(lambda tracee: tracee.arm(), lambda call: None)
    except OSError as error:
        return f"ptrace is not allowed here: {error.strerror}"
    return None if outcome.status == 0 else f"seccomp is not allowed here: {outcome.stderr.strip().splitlines()[-1]}"


def run(program: Callable[[Tracee], None], fault: Fault | None = None, *, timeout: float = 60.0) -> Outcome:
    """Run ``program`` in a forked process; with ``fault``, traced, and it decides at each mutating system call.

    The caller must have no threads and no other children.

    Raises:
        TimeoutError: The program did not end in ``timeout`` seconds; it was killed.
        OSError: Tracing is not allowed.
    """
    ack_out, ack_in = os.pipe()
    gate_out, gate_in = os.pipe()
    outcome = Outcome()
    with tempfile.TemporaryFile() as stderr:
        pid = os.fork()
        if pid == 0:
            os.close(gate_in)
            os.read(gate_out, 1)
            _run_child(program, Tracee(ack_in, traced=fault is not None), stderr.fileno())
        os.close(ack_in)
        os.close(gate_out)
        try:
            if fault is not None:
                _ptrace(_PTRACE_SEIZE, pid, 0, _OPTIONS)
            os.write(gate_in, b"x")
            with _alarm(timeout):
                _loop(pid, fault, outcome)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.close(gate_in)
            _reap()
            outcome.acks = _read_all(ack_out).decode().splitlines()
            os.close(ack_out)
            stderr.seek(0)
            outcome.stderr = stderr.read().decode(errors="replace")
    return outcome


def _run_child(program: Callable[[Tracee], None], tracee: Tracee, stderr: int) -> None:
    status = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        program(tracee)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - the boundary of the forked process: nothing may unwind into the tester's own stack
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _loop(root: int, fault: Fault | None, outcome: Outcome) -> None:
    groups: dict[int, int] = {root: root}
    ending = False
    while True:
        try:
            pid, status = os.waitpid(-1, _WALL)
        except ChildProcessError:
            return
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if pid == root:
                outcome.status = os.waitstatus_to_exitcode(status)
            groups.pop(pid, None)
            continue
        if pid not in groups:
            groups[pid] = _process_of(pid)
        if ending:  # a process that was being born when the rest was killed
            _kill(groups[pid])
            continue
        event, signal_number = status >> 16, os.WSTOPSIG(status)
        deliver = 0 if event else signal_number
        number = 0
        if event == _EVENT_SECCOMP and fault is not None:
            call = _decode(pid, len(outcome.calls) + 1, groups[pid] == root)
            if call is not None:
                outcome.calls.append(call)
                action = fault(call)
                if action is not None:
                    outcome.hit = call
                if action == "kill":
                    ending = True
                    for process in set(groups.values()):
                        _kill(process)
                    continue
                if action == "kill-one":
                    _kill(groups[pid])
                    continue
                if isinstance(action, int):
                    number = action
        try:
            if number:
                _fail(pid, number)
            _ptrace(_PTRACE_CONT, pid, 0, deliver)
        except ProcessLookupError:  # killed meanwhile, as threads are at the end; its end is reported by waitpid
            continue


def _decode(pid: int, number: int, main: bool) -> Syscall | None:
    registers = _registers(pid)
    if registers is None:
        return None
    name, where = _CALLS[registers[_ORIG_RAX]]
    arguments = [registers[index] for index in _ARGUMENTS]
    if name == "ioctl" and arguments[1] & 0xFFFFFFFF != _FICLONE:
        return None
    if where == -9:
        return Syscall(number, name, "", pid, main)
    if where < 0:
        path = _link(pid, arguments[-1 - where])
        if not path.startswith("/") or path.startswith(("/dev/", "/proc/")) or path.endswith(" (deleted)"):
            return None  # a pipe, a socket, a terminal; the nameless file that takes what the program says
        return Syscall(number, name, path, pid, main)
    return Syscall(number, name, _string(pid, arguments[where]), pid, main)


def _process_of(tid: int) -> int:
    try:
        with open(f"/proc/{tid}/status", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("Tgid:"):
                    return int(line.split()[1])
    except OSError:
        pass  # gone already: its own id serves
    return tid


def _link(pid: int, number: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{number & 0xFFFFFFFF}")
    except OSError:
        return ""


def _string(pid: int, address: int) -> str:
    """The text that ends with a NUL there; page by page, for the one behind its end may not be there."""
    found = b""
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            while b"\0" not in found and len(found) < 2 * 4096:
                found += memory.read(4096 - (address + len(found)) % 4096) or b"\0"
    except OSError:
        return "?"
    return found.split(b"\0")[0].decode(errors="replace")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reap() -> None:
    while True:
        try:
            os.waitpid(-1, _WALL)
        except ChildProcessError:
            return


def _read_all(fd: int) -> bytes:
    chunks = []
    while chunk := os.read(fd, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"the traced program did not end in {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_LIBC: Any = None
if sys.platform == "linux":
    _LIBC = ctypes.CDLL(None, use_errno=True)
    _LIBC.ptrace.restype = ctypes.c_long
    _LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _ptrace(request: int, pid: int, address: int, data: Any) -> None:
    if _LIBC.ptrace(request, pid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _registers(pid: int) -> list[int] | None:
    buffer = (ctypes.c_uint64 * _REGISTERS)()
    try:
        _ptrace(_PTRACE_GETREGS, pid, 0, ctypes.addressof(buffer))
    except ProcessLookupError:
        return None
    return list(buffer)


def _fail(pid: int, number: int) -> None:
    registers = _registers(pid)
    if registers is not None:
        registers[_ORIG_RAX] = 2**64 - 1  # no such call: the kernel skips it and returns what is in rax
        registers[_RAX] = 2**64 - number
        buffer = (ctypes.c_uint64 * _REGISTERS)(*registers)
        _ptrace(_PTRACE_SETREGS, pid, 0, ctypes.addressof(buffer))


def _install_filter() -> None:
    """Seccomp: the calls in ``_CALLS`` go to the tracer (opens only if they create or empty a file)."""
    load, equal, any_of, give = 0x20, 0x15, 0x45, 0x06
    allow, hand_over = 0x7FFF0000, 0x7FF00000
    creating = os.O_CREAT | os.O_TRUNC
    program: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),
        (equal, 1, 0, _ARCH_X86_64),
        (give, 0, 0, allow),
        (load, 0, 0, 0),
    ]
    for number, (name, _) in _CALLS.items():
        if name in ("open", "openat"):
            flags_offset = 16 + 8 * (1 if name == "open" else 2)
            program += [
                (equal, 0, 4, number),
                (load, 0, 0, flags_offset),
                (any_of, 0, 1, creating),
                (give, 0, 0, hand_over),
                (give, 0, 0, allow),
            ]
        else:
            program += [(equal, 0, 1, number), (give, 0, 0, hand_over)]
    program.append((give, 0, 0, allow))
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
    instructions = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("<H6xQ", len(program), ctypes.addressof(instructions))
    pr_set_no_new_privs, sys_seccomp, set_filter, all_threads = 38, 317, 1, 1
    if _LIBC.prctl(pr_set_no_new_privs, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    if _LIBC.syscall(sys_seccomp, set_filter, all_threads, header) != 0:
        raise OSError(ctypes.get_errno() or errno.EPERM, "seccomp")
