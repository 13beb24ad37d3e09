"""Grading in processes with limits of processor time and memory: no answer is wrong because a machine is slow."""

import threading
import time

import psutil
import pytest

from prefdelta.tasks import score_all, workers

ANSWERS = [f"\\boxed{{{answer}}}" for answer in ("\\frac{2}{4}", "(x+1)^2", "x^2", "\\sqrt{12}")]
REFERENCES = ["\\frac{1}{2}", "x^2+2x+1", "x^3", "2\\sqrt{3}"]
RIGHT = [True, True, False, True]
ENDLESS = "\\boxed{9^{9^{9^{9}}}}"  # one multiplication of C, which no Python signal interrupts


def test_what_takes_too_long_is_ungraded_not_wrong_and_stops_nothing_else(monkeypatch, caplog):
    monkeypatch.setattr(workers, "SECONDS", (0.5, 1))
    found = score_all("math500", [ENDLESS, *ANSWERS, ENDLESS], ["\\frac{1}{7}", *REFERENCES, "\\frac{1}{7}"], 2)
    assert [correct for _, correct in found] == [None, *RIGHT, None]
    assert found[0][0] == "9^{9^{9^{9}}}"  # the answer is kept
    assert "takes more than 1 s of processor time" in caplog.text and "2 of 6 answers are ungraded" in caplog.text


def test_a_grade_does_not_depend_on_threads_nor_on_what_else_a_machine_does(monkeypatch):
    """The processes are stopped for longer than their limit of processor time, as if others had it all."""
    monkeypatch.setattr(workers, "SECONDS", (1.5, 3))
    known = {child.pid for child in psutil.Process().children(recursive=True)}
    over = threading.Event()

    def disturb():
        while not over.is_set():
            ours = [child for child in psutil.Process().children(recursive=True) if child.pid not in known]
            if len(ours) >= 3:  # warden, server and a fork
                fork = ours[-1]
                fork.suspend()
                time.sleep(3)
                fork.resume()
                return
            time.sleep(0.01)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    found = score_all("math500", ANSWERS, REFERENCES, 1)
    over.set()
    disturber.join()
    assert found == score_all("math500", ANSWERS, REFERENCES, 4)
    assert [correct for _, correct in found] == RIGHT


def test_what_takes_too_much_memory_is_ungraded(monkeypatch, caplog):
    monkeypatch.setattr(workers, "MEMORY", 2**20)  # less than an interpreter takes
    monkeypatch.setattr(workers, "SECONDS", (20,))
    assert score_all("math500", [ENDLESS], ["\\frac{1}{7}"], 1) == [("9^{9^{9^{9}}}", None)]
    assert "GiB of memory" in caplog.text


def test_a_failure_of_the_grader_itself_is_an_error():
    with pytest.raises(workers.WorkerError, match="has no attribute 'nothing'"):
        workers.work("math500", "nothing", [("a",)], 1)


def test_what_is_plain_to_see_needs_no_process(monkeypatch):
    monkeypatch.setattr(workers, "running", None)
    responses = ["\\boxed{12}", "\\boxed{1,234}", "\\boxed{13}", "\\boxed{\\text{(C)}}", "#### 7", "I ran out of", ""]
    found = score_all("math500", responses, ["12", "1234", "12", "C", "7", "3", "3"], 2)
    assert [correct for _, correct in found] == [True, True, False, True, True, False, False]
