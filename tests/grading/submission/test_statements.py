"""What a statement does to names, feature by feature."""

from __future__ import annotations

import ast

import pytest

from compresslab.grading.submission.statements import read_statement


def read(text: str):
    (statement,) = ast.parse(text).body
    return read_statement(statement)


@pytest.mark.parametrize(
    ("text", "binds", "reads", "later"),
    [
        ("a = b", "a", "b", ""),
        ("a: int = b", "a", "b int", ""),
        ("a, *b = c", "a b", "c", ""),
        ("a += b", "a", "a b", ""),
        ("del a", "a", "a", ""),
        ("import os.path, math as m", "os m", "", ""),
        ("from a import b as c", "c", "", ""),
        ("for a in b: c", "a", "b c", ""),
        ("with a as b: c", "b", "a c", ""),
        ("print(a := b)", "a", "print b", ""),
        ("[a := b for b in c]", "a", "c", ""),
        ("x = [b for a in c for b in a if d]", "x", "c d", ""),
        ("def f(x, y=a): return x + b", "f", "a", "b"),
        ("@a\ndef f(x: b) -> c: pass", "f", "a b c", ""),
        ("def f():\n    global a\n    a = b", "f", "", "b"),
        ("def f(x):\n    def g(): return x + a\n    return g", "f", "", "a"),
        ("def f(x):\n    return [a for y in x for a in y]", "f", "", ""),
        ("f = lambda x: x + a", "f", "", "a"),
        ("class A(b):\n    c = d\n    e = c\n    def f(self): return self.c + c", "A", "b d", "c"),
        ("try: import a\nexcept E as e: a = None", "a e", "E", ""),
        ("match a:\n    case [b, *c]: pass\n    case {'x': d, **e}: pass", "b c d e", "a", ""),
        ("async def f(): return await a", "f", "", "a"),
    ],
)
def test_what_it_binds_and_what_it_reads_now_and_later(text, binds, reads, later):
    found = read(text)
    assert (found.now.binds, found.now.reads, found.later.reads) == tuple(
        set(names.split()) for names in (binds, reads, later)
    )


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("a = b = 1", "a b"),
        ("a += 1", ""),
        ("a: int", ""),
        ("for a in b: pass", ""),
        ("if a: b = 1", ""),
        ("if a:\n    b = c = 1\nelse:\n    c = d = 2", "c"),
        ("with a as b: c = 1", "b c"),
        ("try: a = 1\nexcept E: pass", ""),
        ("def f(): pass", "f"),
        ("from a import *", ""),
        ("import a.b", "a"),
        ("del a, b[0]", "a"),
    ],
)
def test_what_it_replaces_whatever_happens(text, kills):
    assert read(text).kills == set(kills.split())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a[0] = 1", "a"),
        ("a.b.c[0].d = 1", "a"),
        ("del a[0]", "a"),
        ("a += [1]", "a"),
        ("a.b += 1", "a"),
        ("for a.b in c: pass", "a"),
        ("a = b", ""),
        ("(a if c else b)[0] = 1", "a b"),
    ],
)
def test_whose_parts_it_stores_into(text, names):
    assert read(text).now.stored_into == set(names.split())


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a = b", "ab"),
        ("a = b.c[0]", "ab"),
        ("a = [b, {'x': c}]", "ab ac"),
        ("a = b.view(-1)", "ab"),
        ("a = f(b)", "ab"),
        ("a = b + c", ""),
        ("for a in b: pass", "ab"),
        ("a['x'] = b", "ab"),
        ("a.append(b)", "ab"),
        ("with a as b: pass", "ba"),
    ],
)
def test_which_names_may_be_of_one_object(text, pairs):
    assert read(text).shared == {tuple(pair) for pair in pairs.split()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(a): a.append(1)", True),
        ("def f(a): a[0] = 1", True),
        ("def f(a):\n    b = a\n    b += [1]", True),
        ("def f(a):\n    a = []\n    return sum(x for x in a)", False),
        ("def f(a): return a.sum()", False),
    ],
)
def test_whether_a_function_changes_its_arguments(text, expected):
    assert read(text).changes_arguments is expected


def test_a_call_tells_whose_objects_it_takes_and_whether_its_result_is_dropped():
    (call,) = read("a.b.c(d, e[0], *f, g=h + i)").now.calls
    assert (call.name, call.owners, call.passed) == ("c", {"a"}, {"d", "e", "f"})
    assert call.dropped
    assert call.plain
    (call, inner) = sorted(read("x = a(b).c()").now.calls, key=lambda call: call.name, reverse=True)
    assert (call.name, call.owners, call.dropped, call.plain, inner.name) == ("c", {"b"}, False, False, "a")
