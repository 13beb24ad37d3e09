"""Scripts that run in forks of one process: as they would by themselves, and gone with whatever ends before them."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from prefdelta.run import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the relay needs pidfd and abstract sockets")

# Stands in for Snakemake: starts a script or waits for one, as each line says, and answers with its process id or exit code.
MAIN = """
import json, os, signal, subprocess, sys
from prefdelta.run.warm import VARIABLE
if sys.argv[1] == "warm":
    os.environ[VARIABLE] = f"{os.getpid()}-{os.urandom(8).hex()}"
signal.signal(signal.SIGINT, lambda *_: None)  # it waits for its scripts, as Snakemake does
started = {}
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        answer = started[order["wait"]].wait()
    else:
        files = [open(order["output"] + end, "w") for end in (".out", ".err")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **order["environment"]}
        process = subprocess.Popen(order["command"], stdin=open("input"), stdout=files[0], stderr=files[1], env=environment)
        started[answer := process.pid] = process
    print(answer, flush=True)
"""
HEAD = """
import json, os, signal, sys, time
from pathlib import Path
from prefdelta.run.warm import run_warm
if __name__ == "__main__":
    run_warm(["wave"])
    name = sys.argv[1]
    about = {"pid": os.getpid(), "keeper": os.getppid(), "warm": "wave" in sys.modules}
    Path(name + ".tmp").write_text(json.dumps(about))
    Path(name + ".tmp").rename(name + ".about")
"""


class Main:
    """A main process that runs scripts in ``folder``."""

    def __init__(self, folder, mode):
        self.folder = folder
        (folder / "input").write_text("what is asked")
        command = [sys.executable, "-c", MAIN, mode]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes)

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, name, body="", head=HEAD, environment=(), through=()):
        """Starts a script and returns its process id."""
        (self.folder / f"{name}.py").write_text(head + "".join(f"    {line}\n" for line in body.splitlines()))
        command = [*through, sys.executable, str(self.folder / f"{name}.py"), name]
        return self.ask(command=command, output=name, environment=dict(environment))

    def run(self, name, *arguments, **options):
        """Runs a script and returns its exit code, its output, and the last line that it wrote to standard error."""
        code = self.ask(wait=self.start(name, *arguments, **options))
        errors = (self.folder / f"{name}.err").read_text()
        return code, (self.folder / f"{name}.out").read_text(), errors.splitlines()[-1:]

    def about(self, name):
        """What a script tells of itself, once it does."""
        file = self.folder / f"{name}.about"
        wait_until(file.exists)
        return json.loads(file.read_text())

    def family(self, name):
        """Process ids of a running script's fork, keeper and relay."""
        about = self.about(name)
        return about["pid"], about["keeper"], psutil.Process(about["keeper"]).ppid()


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(*pids):
    def left():
        found = [pid for pid in pids if psutil.pid_exists(pid)]
        return [pid for pid in found if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]

    wait_until(lambda: not left())
    return True


@pytest.fixture
def main(tmp_path):
    made = []

    def begin(mode="warm", folder=tmp_path):
        folder.mkdir(exist_ok=True)
        made.append(Main(folder, mode))
        return made[-1]

    yield begin
    for each in made:
        each.process.kill()
        each.process.wait()


BODIES = {
    "writes": (
        "print(__name__, sys.argv[1:], os.getcwd(), Path(__file__).name, sys.path[0], sys.stdin.read())\n"
        "print('a warning', file=sys.stderr)\nPath('made').write_text('done')\n"
    ),
    "ends well": "import atexit\natexit.register(print, 'at exit')\nprint('last', end='')",
    "fails": "raise ValueError('wrong')",
    "exits": "import atexit\natexit.register(print, 'at exit')\nsys.exit(3)",
    "says why": "sys.exit('because')",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "is terminated": "os.kill(os.getpid(), signal.SIGTERM)",
    "is interrupted": "signal.raise_signal(signal.SIGINT)",
    "ends badly in a job": (
        "from prefdelta.run.errors import PrefdeltaError\nfrom prefdelta.run.job import job\n"
        "with job(Path('job.log')):\n    raise PrefdeltaError('the table is empty')"
    ),
}


def test_a_script_does_what_it_does_by_itself(main, tmp_path):
    runs = {mode: main(mode, tmp_path / mode) for mode in ("warm", "cold")}
    for name, body in BODIES.items():
        own, shared = (runs[mode].run(name, body, environment={"STUDY": name}) for mode in ("cold", "warm"))
        assert [str(part).replace("/warm", "/cold") for part in shared] == list(map(str, own)), name
        assert runs["warm"].about(name)["warm"] and not runs["cold"].about(name)["warm"]
    logs = [(run.folder / "job.log").read_text().partition(" PrefdeltaError")[2] for run in runs.values()]
    assert logs[0] == logs[1] == ": the table is empty\n"
    assert (tmp_path / "warm/made").read_text() == "done"


def test_a_job_counts_its_start_from_the_script_and_its_own_cpu_and_memory(main, tmp_path):
    work = (
        "from prefdelta.run.job import job\nwith job(Path('job.log')):\n    kept = bytearray(300 * 2**20)\n    sum(range(10**7))"
    )
    assert main().run("works", work)[0] == 0
    words = (tmp_path / "job.log").read_text().rpartition("done: ")[2].split()
    startup, worked, cpu, memory = float(words[0]), float(words[6]), float(words[10]), float(words[14])
    assert startup > 0.02 and 0.05 < cpu < startup + worked + 1 and 300 < memory < 3000


def test_two_first_scripts_at_once_share_a_relay(main):
    run = main()
    scripts = [run.start(name, "time.sleep(60)") for name in ("one", "two", "three")]
    relays = {run.family(name)[2] for name in ("one", "two", "three")}
    assert len(relays) == 1
    for pid in scripts:
        os.kill(pid, signal.SIGTERM)
        assert run.ask(wait=pid) == -signal.SIGTERM


def test_with_the_main_process_all_end(main):
    run = main()
    scripts = [run.start(name, "time.sleep(60)") for name in ("one", "two")]
    pids = {*run.family("one"), *run.family("two"), *scripts}
    run.process.kill()
    assert gone(*pids)


def test_a_relay_ends_with_a_main_process_that_ends_well(main):
    run = main()
    script = run.start("one", "while not Path('go').exists(): time.sleep(0.01)")
    pids = run.family("one")
    (run.folder / "go").touch()
    assert run.ask(wait=script) == 0
    run.process.communicate()
    assert gone(*pids)


def test_a_signal_reaches_the_fork_once(main):
    body = (
        "import logging\ntold = []\nsignal.signal(signal.SIGINT, lambda *_: told.append('SIGINT'))\nPath('ready').touch()\n"
        "while not told: time.sleep(0.01)\ntime.sleep(0.3)\nprint(told)"
    )
    run = main()
    for name, send in {"alone": os.kill, "group": lambda pid, number: os.killpg(run.process.pid, number)}.items():
        (run.folder / "ready").unlink(missing_ok=True)
        script = run.start(name, body)
        wait_until((run.folder / "ready").exists)
        send(script, signal.SIGINT)
        assert run.ask(wait=script) == 0
        assert (run.folder / f"{name}.out").read_text() == "['SIGINT']\n"


def test_a_killed_script_ends_its_fork_only(main):
    run = main()
    killed, other = run.start("one", "time.sleep(60)"), run.start("two", "while not Path('go').exists(): time.sleep(0.01)")
    fork, keeper, relay = run.family("one")
    os.kill(killed, signal.SIGKILL)
    assert gone(fork, keeper)
    assert run.ask(wait=killed) == -signal.SIGKILL
    (run.folder / "go").touch()
    assert run.ask(wait=other) == 0 and psutil.pid_exists(relay)


def test_a_killed_relay_fails_the_jobs_under_way_and_the_next_one_starts_another(main):
    run = main()
    script = run.start("one", "time.sleep(60)")
    pids = run.family("one")
    os.kill(pids[2], signal.SIGKILL)
    assert run.ask(wait=script) == 1 and gone(*pids)
    assert "was killed" in (run.folder / "one.err").read_text()
    assert run.run("two")[0] == 0 and run.about("two")["warm"]


def test_a_relay_that_cannot_start_leaves_the_jobs_to_themselves(main):
    run = main()
    code, _, _ = run.run("one", head=HEAD.replace('["wave"]', '["wave", "no_such_module"]'))
    assert code == 0 and not run.about("one")["warm"]
    assert "There is no warm interpreter" in (run.folder / "one.err").read_text()
    assert "no_such_module" in (run.folder / "one.err").read_text()


def test_others_than_the_main_processs_own_scripts_with_one_thread_run_by_themselves(main):
    run = main()
    assert run.run("shell", through=["sh", "-c", '"$@"; exit $?', "sh"])[0] == 0
    assert run.run("threads", environment={"OMP_NUM_THREADS": "2"})[0] == 0
    assert run.run("as it should be")[0] == 0
    assert [run.about(name)["warm"] for name in ("shell", "threads", "as it should be")] == [False, False, True]


def test_the_modules_of_the_jobs_start_no_threads(main):
    body = "print(*({'torch', 'trl', 'transformers', 'polars', 'pandera'} & set(sys.modules)))"
    run = main()
    code, output, errors = run.run("real", body, head=HEAD.replace('["wave"]', ""))
    assert code == 0 and set(output.split()) == {"torch", "trl", "transformers"}, errors


@pytest.mark.parametrize(
    "main_process, deployment, gpu", [(True, set(), False), (False, set(), False), (True, {"conda"}, False), (True, set(), True)]
)
def test_a_relay_is_offered_to_plain_local_runs_without_a_gpu(monkeypatch, main_process, deployment, gpu):
    monkeypatch.setattr(warm.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
    monkeypatch.delenv(warm.VARIABLE, raising=False)
    settings = SimpleNamespace(deployment_method=deployment)
    warm.offer(SimpleNamespace(is_main_process=main_process, deployment_settings=settings))
    assert (warm.VARIABLE in os.environ) == (main_process and not deployment and not gpu)
    monkeypatch.delenv(warm.VARIABLE, raising=False)
