"""Messages on a pipe: whole, in order, never more than was allowed, and an end that is no message."""

from __future__ import annotations

import os
import threading

import pytest

from compresslab.grading.sandbox.messages import read_message, write_message

MOST = 10_000_000


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    ends = {reading, writing}
    yield reading, writing, lambda end: (ends.discard(end), os.close(end))
    for end in ends:
        os.close(end)


def test_messages_arrive_whole_and_in_order(pipe):
    reading, writing, _ = pipe
    for content in (b"one", b"", b"\n\x00\xff three"):
        write_message(writing, content)
    assert [read_message(reading, most=MOST) for _ in range(3)] == [b"one", b"", b"\n\x00\xff three"]


def test_a_message_larger_than_the_pipe_waits_for_its_reader(pipe):
    reading, writing, _ = pipe
    content = os.urandom(5_000_000)
    writer = threading.Thread(target=write_message, args=(writing, content))
    writer.start()
    assert read_message(reading, most=MOST) == content
    writer.join()


def test_a_message_that_comes_in_pieces_is_put_together(pipe):
    reading, writing, _ = pipe
    whole = (3).to_bytes(8, "big") + b"abc"
    read: list[bytes | None] = []
    reader = threading.Thread(target=lambda: read.append(read_message(reading, most=MOST)))
    reader.start()
    for place in range(len(whole)):
        os.write(writing, whole[place : place + 1])
    reader.join()
    assert read == [b"abc"]


@pytest.mark.parametrize("written", [b"", b"\0\0\0", (3).to_bytes(8, "big") + b"ab"])
def test_an_end_before_or_within_a_message_is_none(pipe, written):
    reading, writing, close = pipe
    os.write(writing, written)
    close(writing)
    assert read_message(reading, most=MOST) is None


@pytest.mark.parametrize(("announced", "read"), [(3, b"abc"), (4, None), (2**64 - 1, None)])
def test_more_than_the_most_is_not_read(pipe, announced, read):
    reading, writing, _ = pipe
    os.write(writing, announced.to_bytes(8, "big") + b"abcd")
    assert read_message(reading, most=3) == read


def test_writing_where_nobody_reads_any_more_is_an_error(pipe):
    reading, writing, close = pipe
    close(reading)
    with pytest.raises(OSError, match="pipe"):
        write_message(writing, b"heard by nobody")
