"""The trusted process between us and an untrusted program: builds the sandbox, starts the program in it, ends it, and reports.

`sandbox.run` starts this file with the base interpreter and ``-I -S``, so it imports the standard library only. It reads a job
(JSON) from its standard input and writes one JSON object to the socket whose number is its argument.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

# linux/sched.h, linux/mount.h, linux/prctl.h, linux/seccomp.h, linux/audit.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_THREAD = 0x10000000, 0x20000000, 0x40000000, 0x00010000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 4096, 16384, 1 << 18, 2
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = -100, 0x8000, 1, 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 1, 22, 38, 2
SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ/JGE/JSET|K, BPF_RET|K
SYS_MOUNT_SETATTR = 442  # the same on all architectures
SYS_CLONE3 = 435

# What would get round the limits (new processes, memory outside the address space, other namespaces) or reach further than
# namespaces do (sockets of machine and hypervisor, keyrings, tracing). System call numbers: asm/unistd.h.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "x86_64": {
        "audit": 0xC000003E,
        "pivot_root": 155,
        "clone": 56,
        "prctl": 157,
        "refused": {
            "fork": 57, "vfork": 58, "socket": 41, "memfd_create": 319, "memfd_secret": 447, "shmget": 29, "semget": 64,
            "msgget": 68, "mq_open": 240, "unshare": 272, "setns": 308, "io_uring_setup": 425, "bpf": 321, "add_key": 248,
            "request_key": 249, "keyctl": 250, "perf_event_open": 298, "userfaultfd": 323, "ptrace": 101,
        },
    },
    "aarch64": {
        "audit": 0xC00000B7,
        "pivot_root": 41,
        "clone": 220,
        "prctl": 167,
        "refused": {
            "socket": 198, "memfd_create": 279, "memfd_secret": 447, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180,
            "unshare": 97, "setns": 268, "io_uring_setup": 425, "bpf": 280, "add_key": 217, "request_key": 218, "keyctl": 219,
            "perf_event_open": 241, "userfaultfd": 282, "ptrace": 117,
        },
    },
}  # fmt: skip

BOX = "/box"  # the program's working directory, the only place where it can write
INSIDE = 1000  # its user and group: not 0, so that it loses all capabilities when it is executed
STACK_BYTES = 64 * 2**20
OPEN_FILES = 64
THREADS = 64

libc = ctypes.CDLL(None, use_errno=True)


def check(what: str, result: int) -> None:
    """Raises OSError, with ``what`` failed in its text, where a call of the C library gave -1."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    check(f"mount {target}", libc.mount(*arguments, ctypes.c_ulong(flags), None if data is None else data.encode()))


def enter_namespaces(architecture: dict[str, Any], binds: list[tuple[str, str]], files: dict[str, str], scratch_mb: int) -> None:
    """Puts this process into a root directory that holds ``files`` and read-only ``binds`` (source, place) and nothing else."""
    user, group = os.geteuid(), os.getegid()
    spaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    check("unshare", libc.unshare(spaces))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{INSIDE} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{INSIDE} {group} 1")

    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    Path("/tmp/old").mkdir()
    check("pivot_root", libc.syscall(ctypes.c_long(architecture["pivot_root"]), b"/tmp", b"/tmp/old"))
    os.chdir("/")
    Path(BOX).mkdir()
    for source, place in binds:
        old, new = Path(f"/old{source}"), Path(place)
        new.parent.mkdir(parents=True, exist_ok=True)
        if old.is_dir():
            new.mkdir(exist_ok=True)
        else:
            new.touch()
        mount(str(old), place, None, MS_BIND | MS_REC)
    for place, text in files.items():
        # A lone surrogate is the program's trouble, not ours.
        Path(place).write_bytes(text.encode("utf-8", "surrogatepass"))
    check("umount", libc.umount2(b"/old", MNT_DETACH))
    Path("/old").rmdir()
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)  # struct mount_attr
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    call = (ctypes.c_long(SYS_MOUNT_SETATTR), AT_FDCWD, b"/", AT_RECURSIVE, ctypes.byref(attributes), size)
    check("mount_setattr (Linux 5.12)", libc.syscall(*call))
    mount("tmpfs", BOX, "tmpfs", MS_NOSUID | MS_NODEV, f"size={scratch_mb}m,nr_inodes=1000,mode=700")
    os.chdir(BOX)


def limit(architecture: dict[str, Any], cpu_seconds: int, memory_mb: int, output_bytes: int) -> None:
    """Bounds this process: it can start threads but no processes, so the limits of one process are those of the program."""
    for what, most in {
        resource.RLIMIT_AS: memory_mb * 2**20,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: output_bytes,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }.items():
        resource.setrlimit(what, (most, most))
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, stack))
    # Before Linux 5.14 this would count all threads of the user on the machine. Root is exempt; there, threads are bounded by
    # their stacks in the address space.
    if tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2]) >= (5, 14):
        resource.setrlimit(resource.RLIMIT_NPROC, (THREADS, THREADS))
    check("prctl", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    refuse_calls(architecture)


def refuse_calls(architecture: dict[str, Any]) -> None:
    """A seccomp filter: new processes and the calls of ``refused`` fail with EPERM. See seccomp(2)."""
    permission, unknown = SECCOMP_RET_ERRNO | errno.EPERM, SECCOMP_RET_ERRNO | errno.ENOSYS
    number, audit, first_argument = 0, 4, 16  # offsets in struct seccomp_data
    program = [
        (LOAD, 0, 0, audit),
        (EQUAL, 1, 0, architecture["audit"]),
        (RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS),
        (LOAD, 0, 0, number),
        (AT_LEAST, 0, 1, 0x40000000),  # x32 has numbers of its own
        (RETURN, 0, 0, permission),
        (EQUAL, 0, 1, SYS_CLONE3),  # its flags are out of a filter's sight; the C library falls back to clone
        (RETURN, 0, 0, unknown),
    ]
    for refused in architecture["refused"].values():
        program += [(EQUAL, 0, 1, refused), (RETURN, 0, 0, permission)]
    program += [
        (EQUAL, 0, 4, architecture["clone"]),
        (LOAD, 0, 0, first_argument),
        (ANY_BIT, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
        (RETURN, 0, 0, permission),
        (EQUAL, 0, 3, architecture["prctl"]),  # it must not outlive us
        (LOAD, 0, 0, first_argument),
        (EQUAL, 0, 1, PR_SET_PDEATHSIG),
        (RETURN, 0, 0, permission),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]

    class Instruction(ctypes.Structure):  # struct sock_filter
        _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction))]

    instructions = (Instruction * len(program))(*(Instruction(*line) for line in program))
    pointer = ctypes.byref(Program(len(program), instructions))
    check("seccomp", libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, pointer, 0, 0))


def supervise(job: dict[str, Any], reports: socket.socket) -> dict[str, Any]:
    """Runs the program of ``job`` and ends it when it is done, too slow, or nobody waits for it any more."""
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise OSError(errno.ENOSYS, f"no system call numbers for {platform.machine()}")
    enter_namespaces(architecture, job["binds"], job["files"], job["scratch_mb"])
    started = time.monotonic()
    program = os.fork()
    if program == 0:
        try:
            reports.set_inheritable(False)
            check("prctl", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
            os.setsid()  # else its kill(0) would reach us
            os.dup2(os.open(job["stdin"], os.O_RDONLY), 0)
            limit(architecture, job["cpu_seconds"], job["memory_mb"], job["output_bytes"])
            os.execve(job["command"][0], job["command"], job["environment"])
        except BaseException as error:
            reports.sendall(json.dumps({"error": str(error)}).encode() + b"\n")
            os._exit(127)
    ends = os.pidfd_open(program)
    poll = select.poll()
    poll.register(ends, select.POLLIN)
    poll.register(reports, select.POLLIN | select.POLLHUP)  # nothing is ever sent to us: this is the other side's end
    ready = [descriptor for descriptor, _ in poll.poll(job["wall_seconds"] * 1000)]
    timed_out = not ready
    if ends not in ready:
        signal.pidfd_send_signal(ends, signal.SIGKILL)
    _, status, usage = os.wait4(program, 0)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    exit_code = os.waitstatus_to_exitcode(status)
    # The kernel counts its limit in ticks, which on a busy machine run ahead of the time that was used: 0.9 s of 1 were seen.
    used_up = cpu_seconds >= job["cpu_seconds"] - 0.3
    stopped_by_clock = timed_out and not used_up
    timed_out |= exit_code == -signal.SIGKILL and used_up
    wall_seconds = time.monotonic() - started
    return {
        "exit_code": exit_code,
        "timed_out": timed_out,
        "stopped_by_clock": stopped_by_clock,
        "cpu_seconds": cpu_seconds,
        "wall_seconds": wall_seconds,
    }


def main() -> None:
    reports = socket.socket(fileno=int(sys.argv[1]))
    try:
        report = supervise(json.load(sys.stdin.buffer), reports)
    except OSError as error:
        report = {"error": error.strerror or str(error)}
    reports.sendall(json.dumps(report).encode() + b"\n")


if __name__ == "__main__":
    main()
