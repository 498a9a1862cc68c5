"""Limits: the memory of all processes of one exercise is added up."""

from __future__ import annotations

import os
import sys

import pytest

from compresslab.grading.sandbox.limits import MEMORY, MemoryWatchdog


@pytest.mark.skipif(sys.platform != "linux", reason="the watchdog reads Linux's /proc")
def test_the_watchdog_adds_up_what_the_processes_of_an_exercise_hold(tmp_path):
    def process(name, resident):
        (tmp_path / name).mkdir()
        pages = resident // os.sysconf("SC_PAGE_SIZE")
        (tmp_path / name / "statm").write_text(f"99999999 {pages} 0 0 0 0 0\n")

    watchdog = MemoryWatchdog()
    os.close(watchdog.processes)
    watchdog.processes = os.open(tmp_path, os.O_RDONLY)
    watchdog.grader, watchdog.inherited = {"1"}, 2**28
    try:
        process("1", 2**40)  # the sandbox's own
        process("20", 2**28 + MEMORY // 2)
        process("21", 2**28 + MEMORY // 2)
        process("22", 2**20)  # less than a fork: it counts for nothing, not for less
        (tmp_path / "23").mkdir()  # it has ended by now
        (tmp_path / "sys").mkdir()
        assert not watchdog.is_exceeded()
        process("24", 2**28 + 2**20)
        assert watchdog.is_exceeded()
    finally:
        os.close(watchdog.processes)
