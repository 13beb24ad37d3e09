"""The sandbox, attacked: every program here runs for real."""

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from prefdelta.data import sandbox
from prefdelta.data.sandbox import SandboxError, run

REPOSITORY = Path(__file__).parents[1]


def allowed():
    """Whether this machine allows namespaces, asked of someone else."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-Urnm", "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not allowed(), reason="user namespaces are not allowed here")


def outcome(code, stdin="", **limits):
    return run(code, stdin, **({"seconds": 2, "memory_mb": 256, "output_bytes": 100_000} | limits))


def printed(code, stdin="", **limits):
    """What ``code`` prints, which must end well."""
    ended = outcome(code, stdin, **limits)
    assert ended.ok, ended.stderr
    return ended.stdout


def test_a_program_reads_its_input_and_its_outputs_are_told_apart():
    ended = outcome("import sys\nprint(input()[::-1])\nprint('oh', file=sys.stderr)", "straße\n")
    assert (ended.stdout, ended.stderr, ended.exit_code, ended.ok) == ("eßarts\n", "oh\n", 0, True)


@pytest.mark.parametrize("name", ["0", "'/dev/stdin'"])
def test_the_input_can_be_opened_by_name(name):
    assert printed(f"print(open({name}).read())", "a\nb") == "a\nb\n"


def test_an_input_that_is_used_up_is_an_end_of_file():
    ended = outcome("input()\ninput()", "one line\n")
    assert (ended.exit_code, ended.ok) == (1, False)
    assert "EOFError" in ended.stderr


def test_an_exit_code_and_a_signal_are_told():
    assert outcome("raise SystemExit(3)").exit_code == 3
    assert outcome("import ctypes; ctypes.string_at(0)").exit_code == -11


def test_large_inputs_and_outputs_pass():
    text = "0123456789" * 200_000
    assert printed("print(input())", text, output_bytes=3_000_000) == text + "\n"


def test_output_that_is_not_utf8_is_replaced():
    assert printed(r"import sys; sys.stdout.buffer.write(b'a\xff\xfeb')") == "a\ufffd\ufffdb"


def test_code_that_is_not_even_text_only_fails():
    assert not outcome("print('\ud800')").ok
    assert not outcome("print(1)\0").ok


def test_the_same_program_does_the_same_each_time():
    code = "print({str(i) for i in range(50)})"
    assert printed(code) == printed(code)


def test_numpy_is_there_and_our_packages_are_not():
    assert printed("import numpy; print(numpy.arange(4).sum())", memory_mb=2048, seconds=5) == "6\n"
    for name in ("prefdelta", "polars"):
        assert "ModuleNotFoundError" in outcome(f"import {name}").stderr


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', port), timeout=1)",
        "socket.socket(socket.AF_UNIX).connect(path)",
        "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    ],
)
def test_there_is_no_network(attempt, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        given = f"import socket\nport, path = {server.getsockname()[1]}, {str(tmp_path / 'socket')!r}\n"
        ended = outcome(given + attempt)
    assert ended.exit_code == 1
    assert "Error" in ended.stderr


def test_nothing_of_ours_can_be_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("password")
    places = [
        str(path) for path in (secret, REPOSITORY, Path(__file__), Path.home() / ".ssh", "/proc/self", "/etc/passwd", "/run")
    ]
    assert printed(f"import os\nprint([path for path in {places!r} if os.path.exists(path)])") == "[]\n"


def test_nothing_of_ours_is_in_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "secret" not in printed("import os; print(dict(os.environ))")


def test_our_open_files_are_not_handed_on(tmp_path):
    (tmp_path / "file").write_text("password")
    with (tmp_path / "file").open() as file:
        os.set_inheritable(file.fileno(), True)
        code = "import os\nfor fd in range(3, 64):\n    try: print(fd, os.fstat(fd))\n    except OSError: pass"
        assert printed(code) == ""


@pytest.mark.parametrize(
    "folder", [str(REPOSITORY), str(Path.home()), "/", "/usr", "/dev", "/packages", str(Path(os.__file__).parent)]
)
def test_nothing_can_be_written_outside(folder, tmp_path):
    name = f"{folder}/written-{os.getpid()}"
    ended = outcome(f"open({name!r}, 'w').write('x')")
    assert ended.exit_code == 1
    assert not Path(name).exists()


def test_the_working_directory_is_small_and_gone_afterwards():
    assert printed("open('file', 'w').write('x'); print(open('file').read())") == "x\n"
    assert printed("import os; print(os.listdir())") == "[]\n"
    filled = outcome("for i in range(1000): open(str(i), 'wb').write(b'x' * 100_000)")
    assert "No space left" in filled.stderr


def test_the_user_has_no_power():
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(os.getuid(), [call(*arguments) for call, arguments in [
    (libc.unshare, (0x10000000,)), (libc.setns, (0, 0)), (libc.mount, (b"/usr", b"/box", None, 4096, None)),
    (libc.chroot, (b"/box",)), (libc.ptrace, (0, 0, 0, 0)), (libc.prctl, (1, 0)), (libc.shmget, (0, 4096, 512)),
    (libc.setuid, (0,)), (libc.syscall, (319 if os.uname().machine == "x86_64" else 279, b"memory", 0)),
]])
"""
    assert printed(code) == f"1000 {[-1] * 9}\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "os.fork()",
        "subprocess.run(['/bin/true'])",
        "os.system('true') and exit(1)",
        "multiprocessing.Process(target=print).start()",
    ],
)
def test_no_process_can_be_started_so_none_can_outlive_it(attempt):
    assert outcome(f"import os, subprocess, multiprocessing\n{attempt}").exit_code == 1


def test_a_bomb_of_forks_is_bounded():
    code = "import os\nn = 0\nfor _ in range(1000):\n    try: os.fork(); n += 1\n    except OSError: pass\nprint(n)"
    assert printed(code) == "0\n"


def test_a_bomb_of_threads_is_bounded():
    code = """
import os, threading, time
threading.stack_size(2**20)
n = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        n += 1
except RuntimeError:
    os.write(1, str(n).encode())
    os._exit(0)
"""
    assert 0 < int(printed(code)) < 256


def test_threads_work():
    code = "import threading\nt = threading.Thread(target=print, args=('here',))\nt.start()\nt.join()"
    assert printed(code) == "here\n"


def test_memory_is_bounded():
    ended = outcome("x = bytearray(300 * 2**20)")
    assert ended.exit_code == 1
    assert "MemoryError" in ended.stderr
    assert printed("x = bytearray(100 * 2**20); print(len(x))") == f"{100 * 2**20}\n"


@pytest.mark.parametrize("code", ["while True: pass", "import signal\nsignal.pthread_sigmask(0, range(1, 32))\nwhile True: pass"])
def test_a_program_without_end_is_ended_by_its_cpu_time(code):
    ended = outcome(code, seconds=1, wall_to_cpu=30)
    assert (ended.timed_out, ended.stopped_by_clock, ended.ok) == (True, False, False)
    assert ended.cpu_seconds < 1.5


def test_a_program_that_only_waits_is_ended_by_the_clock():
    ended = outcome("import time; time.sleep(60)", seconds=0.5)
    assert (ended.timed_out, ended.stopped_by_clock, ended.exit_code) == (True, True, -9)
    assert ended.cpu_seconds < 0.5


def test_output_without_end_is_cut():
    ended = outcome("while True: print('x' * 1000)", output_bytes=50_000)
    assert (len(ended.stdout), ended.output_exceeded, ended.ok) == (50_000, True, False)
    # Also where it takes no notice.
    code = "import sys\nwhile True:\n    try: sys.stderr.write('x' * 1000)\n    except OSError: pass"
    ended = outcome(code, output_bytes=50_000, seconds=1)
    assert (len(ended.stderr), ended.output_exceeded, ended.timed_out) == (50_000, True, True)


def test_it_can_not_kill_what_supervises_it():
    assert printed("import os\nos.kill(0, 9)\nprint('alive')") == "alive\n"
    assert outcome("import os\nos.kill(-1, 9)").exit_code == 1


def children():
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_nothing_is_left_of_a_program():
    before = children()
    outcome("import time\ntime.sleep(60)", seconds=0.2)
    assert children() <= before


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_program_ends_with_us(how, tmp_path):
    import signal

    bounds = "seconds=60, memory_mb=256, output_bytes=100"
    code = f"from prefdelta.data.sandbox import run\nrun('import time; time.sleep(60)', '', {bounds})"
    job = psutil.Popen([sys.executable, "-c", code])
    eventually(lambda: len(job.children(recursive=True)) == 2)
    family = job.children(recursive=True)
    job.send_signal(getattr(signal, how))
    job.wait()
    eventually(lambda: not any(process.is_running() and process.status() != "zombie" for process in family))


def eventually(holds, patience=10):
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_several_run_at_once():
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda number: printed(f"print({number})"), range(12)))
    assert ended == [f"{number}\n" for number in range(12)]
    assert threading.active_count() < 20


def test_without_namespaces_nothing_is_run_and_the_message_helps(tmp_path):
    code = (
        "import sys\nfrom prefdelta.data.sandbox import SandboxError, run\n"
        "try:\n    run('print(1)', '', seconds=1, memory_mb=256, output_bytes=100)\n"
        "except SandboxError as error:\n    sys.exit(f'refused: {error}')"
    )
    shell = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
    ended = subprocess.run(["unshare", "-Ur", "sh", "-c", shell, sys.executable, code], capture_output=True, text=True)
    assert ended.stdout == ""
    assert "refused: the sandbox could not be built: unshare" in ended.stderr
    assert "user.max_user_namespaces" in ended.stderr


def test_an_interpreter_that_can_not_start_is_an_error_and_no_wrong_answer(monkeypatch):
    monkeypatch.setattr(sandbox, "SYSTEM", ())
    sandbox._check_once.cache_clear()
    with pytest.raises(SandboxError):
        outcome("print(1)")
    monkeypatch.undo()
    assert printed("print(1)") == "1\n"
