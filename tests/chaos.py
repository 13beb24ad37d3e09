"""Breaks a run of the smoke study again and again, and gives the same command each time: what comes out in the end?

    python tests/chaos.py --faults 30 --seed 0

A seeded agent kills jobs, the judge's server, the warm process, the whole workflow (SIGTERM, SIGKILL, the parent alone), fills
a small file system for the store or for results, makes a folder read-only, and truncates and flips finished files. Nobody
unlocks or repairs anything. The judge `oracle` is asked over a proxy that counts its requests. The last line says what came
out. The exit code is 1 where a row differs from that of a run left alone, a process or a lock is left, or more requests were
repeated than were under way at the faults. Linux only: it mounts file systems, so it starts itself again in a user namespace.
"""

import argparse
import collections
import contextlib
import hashlib
import http.client
import http.server
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import polars as pl
import psutil
import yaml

from prefdelta.endpoint.serve_microworld import PROGRAM

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = Path("results/smoke")
TOKEN = "PREFDELTA_CHAOS"  # in the environment of all that a run starts
KILLS = ["job", "judge's server", "served judge", "warm process", "TERM", "KILL", "parent alone"]
BREAKS = ["full store", "full results", "read-only results", "truncated file", "flipped bit"]
STORE_BYTES, RESULTS_BYTES = 64 * 2**20, 512 * 2**20
PATIENCE = 900  # seconds for one run of the command


class Judge:
    """The oracle's server behind a proxy, which outlives it and counts what it has answered by the requests' bodies."""

    def __init__(self):
        self.counts, self.under_way, self.peak = collections.Counter(), 0, 0
        self.guard, self.process, self.ending = threading.Lock(), None, False
        judge = self

        class Proxy(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with judge.guard:
                    judge.under_way += 1
                    judge.peak = max(judge.peak, judge.under_way)
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", judge.port)
                    connection.request("POST", self.path, body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    content = answer.read()
                    with judge.guard:  # what it was paid for, whether anybody still waits for it or not
                        judge.counts[hashlib.sha256(body).hexdigest()] += 1
                    self.send_response(answer.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                finally:
                    with judge.guard:
                        judge.under_way -= 1

            def log_message(self, *_):
                pass

        self.proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        self.proxy.daemon_threads = True
        self.proxy.handle_error = lambda *_: None  # a job that was killed hangs up
        self.address = f"http://127.0.0.1:{self.proxy.server_port}/v1"
        with contextlib.closing(http.server.HTTPServer(("127.0.0.1", 0), Proxy).socket) as free:
            self.port = free.getsockname()[1]
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self):
        """Starts the server, again whenever it was killed."""
        command = [sys.executable, "-m", PROGRAM, "--port", str(self.port), "--noise", "0.8", "--unparsable", "0.05"]
        while not self.ending:
            self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            self.process.wait()

    def since(self):
        """The counts and the most requests at a time, from now on counted anew."""
        with self.guard:
            counts, peak = self.counts, self.peak
            self.counts, self.peak = collections.Counter(), self.under_way
        return counts, peak

    def end(self):
        self.ending = True
        self.process.kill()
        self.proxy.shutdown()


class Study:
    """A copy of the repository, and the one command that is given in it."""

    def __init__(self, folder, judge, targets, cores):
        self.folder, self.name = folder, folder.name
        kept = shutil.ignore_patterns(".*", "results", "__pycache__", "*.egg-info", "store")
        shutil.copytree(REPOSITORY, folder, ignore=kept, dirs_exist_ok=True)
        config = yaml.safe_load((folder / "config/smoke.yaml").read_text())
        config["judges"]["oracle"]["endpoint"] = {"kind": "url", "base_url": judge.address, "api_key_env": "CHAOS_KEY"}
        (folder / "config/chaos.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        (folder / "results").mkdir()
        (folder / "store").mkdir()
        self.command = [sys.executable, "-m", "snakemake", "--configfile", "config/chaos.yaml", "--cores", str(cores), *targets]
        self.environment = {**os.environ, "PYTHONPATH": str(folder / "workflow"), "CHAOS_KEY": "none", TOKEN: str(folder)}
        self.environment["PREFDELTA_STORE"] = str(folder / "store")

    def start(self):
        log = (self.folder / "chaos.log").open("ab")
        with log:
            return subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def finish(self, process):
        """The exit code of a run. Ends it where it takes too long."""
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise

    def processes(self):
        """All that a run has started and that is still there."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get(TOKEN) == str(self.folder)
                if ours and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(process)
        return found

    def left(self, seconds=30):
        """What is still there of a run whose main process has ended, ``seconds`` later at the latest."""
        end = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < end:
            time.sleep(0.2)
        return found

    def tables(self):
        """The parquet and CSV tables of the study, by path."""
        found = sorted([*self.folder.glob("results/**/*.parquet"), *self.folder.glob("results/**/*.csv")])
        return {str(file.relative_to(self.folder)): file for file in found if not file.name.startswith(".")}

    def finished(self):
        """What flips and truncations may hit: tables and manifests."""
        manifests = {str(file.relative_to(self.folder)): file for file in self.folder.glob("results/**/manifest.json")}
        return self.tables() | manifests


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def matching(processes, words):
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if words in " ".join(process.cmdline()):
                found.append(process)
    return found


class Agent:
    """Makes faults in ``study``, all of them from one seed."""

    def __init__(self, study, judge, once, seed, targets, longest):
        self.longest = longest  # seconds until something is killed
        self.once, self.surplus = once, 0  # what a run left alone asks; how many requests were sent beyond that
        self.study, self.judge, self.rng, self.targets = study, judge, random.Random(seed), targets
        self.faults, self.in_flight, self.left_behind = collections.Counter(), 0, 0
        self.queue = []

    def next_kind(self):
        """Each kind once, in a random order, before one comes again."""
        if not self.queue:
            self.queue = self.rng.sample(KILLS + BREAKS, len(KILLS + BREAKS))
        return self.queue.pop()

    def fault(self):
        kind = self.next_kind()
        log = self.study.folder / "chaos.log"
        log.touch()
        before = log.stat().st_size
        with self.judge.guard:
            self.judge.peak = 0
        make = self.kill if kind in KILLS else self.damage
        made = make(kind)
        # A kill loses what is under way at one time. On a broken disk each job that ends loses what it had asked for at once.
        n_ended = log.read_bytes()[before:].count(b"Error in rule rate_traces")
        self.in_flight += self.judge.peak * (1 if kind in KILLS else n_ended)
        left = self.study.left()
        self.left_behind += len(left)
        for process in left:
            print(f"  left: {process}", flush=True)
            process.kill()
        if made:
            self.faults[kind] += 1
        print(f"{sum(self.faults.values()):3} {kind}: {made or 'not made, there was nothing to hit'}", flush=True)

    def kill(self, kind):
        """Runs the command and kills something of it, after a random time or when it is there. What was hit, or None."""
        main = self.study.start()
        patience = time.monotonic() + self.rng.uniform(3, self.longest)
        words = {"job": ".snakemake/scripts", "served judge": "transformers_server", "warm process": "prefdelta.run.warm"}
        hit = None
        while main.poll() is None and hit is None:
            time.sleep(0.01 if kind == "judge's server" else self.rng.uniform(0.05, 0.3))
            if kind in ("TERM", "KILL", "parent alone"):
                if time.monotonic() > patience:
                    hit = f"process {main.pid}"
                    number = signal.SIGTERM if kind == "TERM" else signal.SIGKILL
                    (os.kill if kind == "parent alone" else os.killpg)(main.pid, number)
            elif kind == "judge's server":
                if self.judge.under_way or time.monotonic() > patience:
                    hit = f"{self.judge.under_way} requests under way"
                    self.judge.process.kill()
            elif found := matching(self.study.processes(), words[kind]):
                time.sleep(self.rng.uniform(0, 3))
                victim = self.rng.choice(found)
                with contextlib.suppress(psutil.Error):
                    hit = " ".join(victim.cmdline()[-2:])[-90:]
                    victim.kill()
        self.study.finish(main)
        return hit

    def damage(self, kind):
        """Breaks a file or a file system and runs the command in it."""
        folder, undo = self.study.folder, []
        if kind in ("full store", "full results"):
            place = folder / ("store" if kind == "full store" else "results")
            filler, leave = place / "filler", self.rng.randrange(2**12, 2**18)
            size = shutil.disk_usage(place).free - leave
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            made, undo = f"{leave} bytes free in {place.name}", [filler.unlink]
        elif kind == "read-only results":
            places = [each for each in (folder / RESULTS).glob("*") if each.is_dir()] or [folder / "results"]
            place = self.rng.choice(places)
            mount("--bind", place, place)
            mount("-o", "remount,bind,ro", place)
            made, undo = str(place.relative_to(folder)), [lambda: subprocess.run(["umount", "-l", place], check=True)]
        else:
            whole = self.study.finished()
            # Of what was asked for nobody reads anything again.
            hit = [name for name in sorted(whole) if name not in self.targets and whole[name].stat().st_size > 1]
            if not hit:
                return None
            made = self.rng.choice(hit)
            content = bytearray(whole[made].read_bytes())
            if kind == "flipped bit":
                content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
            else:
                del content[self.rng.randrange(len(content)) :]
            whole[made].write_bytes(content)
        try:
            main = self.study.start()
            self.study.finish(main)
        finally:
            for step in undo:
                step()
        return made

    def forget(self):
        """So that there is something left to do: removes what was asked for and finished files at random, as a person may; every
        second time all that the judge has answered, too."""
        whole = self.study.finished()
        for name in self.rng.sample(sorted(whole), min(6, len(whole))):
            whole[name].unlink(missing_ok=True)
        for target in self.targets or [str(RESULTS / "report.html")]:
            (self.study.folder / target).unlink(missing_ok=True)
        if self.rng.random() < 0.5:
            self.count()
            shutil.rmtree(self.study.folder / RESULTS / "ratings/oracle", ignore_errors=True)
            for place in (self.study.folder / "store").iterdir():
                shutil.rmtree(place)
            print("  the judge's answers are forgotten", flush=True)

    def count(self):
        """Adds to ``surplus`` what was asked since the last time and should not have been."""
        asked, _ = self.judge.since()
        self.surplus += (asked - self.once).total()


def differing(clean, other):
    """The number of rows that two studies' tables do not share, and in which tables they are."""
    ours, theirs = clean.tables(), other.tables()
    rows, where = 0, []
    for name in sorted(ours | theirs):
        read = pl.read_csv if name.endswith(".csv") else pl.read_parquet
        one, two = (
            collections.Counter(map(repr, read(files[name]).iter_rows()) if name in files else ()) for files in (ours, theirs)
        )
        n = ((one - two) + (two - one)).total() + ((name in ours) != (name in theirs))
        rows += n
        where += [name] if n else []
    return rows, where


def asked_twice(studies, judge, folder):
    """How many requests two runs at once on one empty store send that one run would not. Both rate all traces again."""
    judge.since()
    for study in studies:
        study.environment["PREFDELTA_STORE"] = str(folder / "shared")
        shutil.rmtree(study.folder / RESULTS / "ratings/oracle")
    runs = [(study, study.start()) for study in studies]
    for study, process in runs:
        if study.finish(process):
            sys.exit("a run of two at once failed")
    counts, _ = judge.since()
    return sum(counts.values()) - len(counts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=40, help="no further fault after this time")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", help="where the two copies are made; kept where it is given")
    parser.add_argument("--together", action="store_true", help="at the end two runs at once on one empty store, too")
    parser.add_argument("targets", nargs="*", help="the whole report by default")
    given = parser.parse_args()
    started = time.monotonic()
    folder = Path(given.folder or tempfile.mkdtemp(prefix="prefdelta-chaos-")).resolve()
    judge = Judge()
    clean, broken = (Study(folder / name, judge, given.targets, given.cores) for name in ("clean", "broken"))
    mount("-t", "tmpfs", "-o", f"size={STORE_BYTES}", "none", broken.folder / "store")
    mount("-t", "tmpfs", "-o", f"size={RESULTS_BYTES}", "none", broken.folder / "results")
    if clean.finish(clean.start()):
        sys.exit(f"the undisturbed run failed:\n{(clean.folder / 'chaos.log').read_text()[-6000:]}")
    once, _ = judge.since()
    took = time.monotonic() - started
    print(f"undisturbed: {took:.0f} s, {sum(once.values())} requests", flush=True)
    agent = Agent(broken, judge, once, given.seed, given.targets, longest=min(25, max(4, took / 3)))
    tries = 0
    while (
        sum(agent.faults.values()) < given.faults and tries < 3 * given.faults and time.monotonic() - started < 60 * given.minutes
    ):
        tries += 1
        if all((broken.folder / target).exists() for target in given.targets or [RESULTS / "report.html"]):
            agent.forget()
        agent.fault()
    for _ in range(6):
        code = broken.finish(broken.start())
        print(f"the same command, left alone: exit code {code}", flush=True)
        if code == 0:
            break
    # What was removed and nobody needs is not made again by itself.
    if missing := [name for name in clean.tables() if name not in broken.tables()]:
        broken.command += missing
        code = code or broken.finish(broken.start())
    rows, where = differing(clean, broken)
    n_left = agent.left_behind + len(broken.left()) + len(clean.left())
    locks = list((broken.folder / ".snakemake/locks").glob("*"))
    agent.count()
    twice = asked_twice([clean, broken], judge, folder) if given.together else 0
    judge.end()
    for each in where:
        print(f"differs: {each}")
    if locks or code:
        print(f"exit code {code}, locks left: {locks}\n{(broken.folder / 'chaos.log').read_text()[-4000:]}")
    if not given.folder:
        for name in ("store", "results"):
            subprocess.run(["umount", "-l", broken.folder / name], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    n_faults = sum(agent.faults.values())
    if given.together:
        print(f"two runs at once on one store: {twice} requests asked twice")
    print(", ".join(f"{kind}: {n}" for kind, n in sorted(agent.faults.items())))
    print(
        f"{n_faults} faults, {rows} differing rows, {n_left} processes left, "
        f"{agent.surplus} surplus requests (at most {agent.in_flight} in flight)"
    )
    sys.exit(bool(rows or n_left or locks or code or agent.surplus > agent.in_flight or twice or n_faults < given.faults))


if __name__ == "__main__":
    if os.environ.get(TOKEN) != "inside":
        inside = {**os.environ, TOKEN: "inside"}
        os.execvpe("unshare", ["unshare", "-rm", sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]], inside)
    main()
