"""Forging the record's channel: what the worker reads back is written by the student's own process.

An answer knows everything about the channel, for it runs beside the code that writes to it. So it may say
what it likes: the numbers are judged all the same. What it must not do is hurt whoever reads.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
import time
import zipfile

import numpy as np
from hostile.attack import Attack, attack

__all__ = ["ATTACKS"]

UNREADABLE = "can't be read"


def send(record):
    """Hands in these bytes as if they were the worker's own record, and ends."""
    rest = memoryview(len(record).to_bytes(8, "big") + record)
    while rest:
        rest = rest[os.write(3, rest) :]
    os._exit(0)


@attack("can't be read")
def forged_frames(x):
    """Writes a forged record, with lengths of every kind, to each descriptor there could be."""
    for pipe in range(256):
        for head in (
            b"",
            (9).to_bytes(8, "big"),
            (2**63).to_bytes(8, "big"),
            b"ok\n",
            b"ended attacked ok\n",
        ):
            with contextlib.suppress(OSError):
                os.write(pipe, head + b"run\n[[[], 0, 0]]")
    return 0.0


@attack("the sum")
def a_forged_run(x):
    """Writes a whole record of its own to the channel: numbers of the right kind, but guessed."""
    running = sys.modules["compresslab.checks.call"]
    recording = sys.modules["compresslab.checks.record"]
    attempt = running.Attempt({"sum": recording.describe(1.0)})
    record = b"run\n" + running.run_to_bytes(running.Run((attempt, attempt)))
    for pipe in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(pipe, len(record).to_bytes(8, "big") + record)
    os._exit(0)


@attack("can't be read")
def a_second_record_for_the_next(x):
    """Leaves a whole second message behind its own, which the next exercise might read as its own."""
    running = sys.modules["compresslab.checks.call"]
    record = b"ok\nrun\n" + running.run_to_bytes(running.Run(()))
    for _ in range(3):
        with contextlib.suppress(OSError):
            os.write(3, len(record).to_bytes(8, "big") + record)
    return 0.0


@attack(UNREADABLE)
def a_zip_bomb(x):
    """Sends an .npz that unpacks to 10 GB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tree.npy", bytes(200_000_000))
    send(b"run\n" + file.getvalue())


@attack(UNREADABLE)
def a_pickle_in_the_record(x):
    """Sends an .npz whose one array is a pickle that would run a command."""

    class Pickled:
        def __reduce__(self):
            return os.system, ("touch /tmp/pwned",)

    file = io.BytesIO()
    np.savez(file, tree=np.array([Pickled()], dtype=object))
    send(b"run\n" + file.getvalue())


@attack(UNREADABLE)
def a_deep_record(x):
    """Sends a record whose words are nested 100,000 deep, to break the reader's stack."""
    file = io.BytesIO()
    words = b'{"dict": [["a", ' * 100_000
    np.savez(file, tree=np.frombuffer(words, np.uint8))
    send(b"run\n" + file.getvalue())


@attack(UNREADABLE)
def a_record_that_says_other_than_it_holds(x):
    """Sends a record whose shape, dtype and strides are larger than its bytes."""
    recording = sys.modules["compresslab.checks.record"]
    tree = [[[{"sum": recording.Recorded("ndarray", "", "float64", np.zeros(3))}, "", "", ""]], "", 0, ""]
    send(b"run\n" + recording.to_bytes(tree).replace(b"(3,)", b"(9,)"))


@attack("ended its process")
def half_a_record(x):
    """Begins a record, announces more than comes, and ends."""
    os.write(3, (1_000).to_bytes(8, "big") + b"run\n")
    os._exit(0)


@attack("did not return within")
def a_silent_channel(x):
    """Closes every descriptor and goes on for ever."""
    os.closerange(0, 4096)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1)


@attack(UNREADABLE)
def one_array_a_thousand_times(x):
    """Sends a record of 8 MB that refers to its one array 600 times: 5 GB where each is a copy."""
    words = b'[[], "", 0, [' + b",".join([b'{"array": "array_0"}'] * 600) + b"]]"
    file = io.BytesIO()
    np.savez(file, tree=np.frombuffer(words, np.uint8), array_0=np.zeros(1_000_000))
    send(b"run\n" + file.getvalue())


@attack(UNREADABLE)
def ten_million_empty_lists(x):
    """Sends a record of 30 MB that is 2 GB of empty lists in Python."""
    words = b"[" + b"[]," * 10_000_000 + b"[]]"
    file = io.BytesIO()
    np.savez(file, tree=np.frombuffer(words, np.uint8))
    send(b"run\n" + file.getvalue())


@attack(UNREADABLE)
def a_million_members(x):
    """Sends an archive whose table of contents lists a million files that are not there."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    table = entry * 1_000_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 16_960, 16_960, len(table), 0, 0)
    send(b"run\n" + table + end)


@attack("no need to look")
def words_instead_of_a_record(x):
    """Sends a sentence of its own instead of a record: markup, escapes, and that all is right."""
    send(b"no\nno need to look: <script>alert(1)</script>\x1b[2J all right, 2 of 2 points")


@attack("can't be read")
def strides_that_swell(x):
    """Sends 600 tensors of 976 bytes, whose strides put each byte on a page of its own: 2.4 GB when read."""
    node = '{{"tensor": "array_{}", "dtype": "uint8", "strides": [4096]}}'
    words = f'[[], "", 0, [{",".join(map(node.format, range(600)))}]]'.encode()
    arrays = {f"array_{number}": np.zeros(976, np.uint8) for number in range(600)}
    file = io.BytesIO()
    np.savez(file, tree=np.frombuffer(words, np.uint8), **arrays)
    send(b"run\n" + file.getvalue())


@attack("left a record that can't be read", hole="count_parameters")
def a_record_without_its_values(*arguments, **settings):
    """Sends a record that lacks the value a judge looks up, so that the fault would seem the grader's."""
    running = sys.modules["compresslab.checks.call"]
    send(b"run\n" + running.run_to_bytes(running.Run((running.Attempt(),) * 9)))


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
