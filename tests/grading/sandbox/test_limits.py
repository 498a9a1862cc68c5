"""Confinement: what a room takes in all is added up, and a refusal of the kernel is an error."""

from __future__ import annotations

import os
import sys

import pytest

from compresslab.grading.sandbox import limits as confinement
from compresslab.grading.sandbox.limits import MEMORY, Watch

linux = pytest.mark.skipif(sys.platform != "linux", reason="rooms are for Linux alone")


@linux
def test_the_watch_adds_up_what_the_processes_of_a_room_hold(tmp_path):
    def process(name, resident):
        (tmp_path / name).mkdir()
        pages = resident // os.sysconf("SC_PAGE_SIZE")
        (tmp_path / name / "statm").write_text(f"99999999 {pages} 0 0 0 0 0\n")

    watch = Watch()
    os.close(watch.processes)
    watch.processes = os.open(tmp_path, os.O_RDONLY)
    watch.strangers, watch.of_a_fork = {"1"}, 2**28
    try:
        process("1", 2**40)  # the sandbox's own
        process("20", 2**28 + MEMORY // 2)
        process("21", 2**28 + MEMORY // 2)
        process("22", 2**20)  # less than a fork: it counts for nothing, not for less
        (tmp_path / "23").mkdir()  # it has ended by now
        (tmp_path / "sys").mkdir()
        assert not watch.too_much()
        process("24", 2**28 + 2**20)
        assert watch.too_much()
    finally:
        os.close(watch.processes)


@linux
def test_a_refusal_of_the_kernel_is_an_error():
    with pytest.raises(OSError, match="prctl: "):
        confinement._call("prctl", 2**20, 0, 0, 0, 0)
