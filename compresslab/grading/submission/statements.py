"""What a top-level statement binds, changes and needs, found in its syntax tree alone.

A notebook is a program of top-level statements in the order of its cells. ``slicing`` asks of each statement:

- which names does it *bind*, and which of them whatever happens (``kills``)?
- which names does it *read* while it runs, and which only when a function that it makes is called
  (``latent``)? - whose objects may it *change* without binding a name (``KINDS.append(x)``, ``kinds["a"] =
1``, ``fill(KINDS)``)?
- which names may be two names of one object afterwards (``same = KINDS``)?

Where the syntax tree cannot tell, the answer is "it may": a statement too many costs time, one too few
points.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Call", "Effects", "Statement", "read_statement", "roots"]

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Import = ast.Import | ast.ImportFrom
STAR = "*"  # the name that a star import binds


@dataclass(frozen=True)
class Call:
    """A call: ``owner.name(passed)``, or ``name(passed)`` without an owner.

    ``owners`` and ``passed`` are the names of the objects that it may change. ``dropped`` tells whether
    nothing uses its result: such a call is there for its effect. ``plain`` tells whether the owner is
    written as names and dots alone.
    """

    name: str
    owners: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()
    dropped: bool = False
    plain: bool = False


@dataclass
class Effects:
    """What running a statement, or calling the functions that it makes, may do to names at the top level."""

    binds: set[str] = field(default_factory=set)
    reads: set[str] = field(default_factory=set)
    attributes: set[tuple[str, str]] = field(
        default_factory=set
    )  # (``yours``, ``unfold``) for ``yours.unfold``
    stored_into: set[str] = field(default_factory=set)  # an attribute or item of them is assigned or deleted
    calls: set[Call] = field(default_factory=set)


@dataclass(frozen=True)
class Statement:
    """A top-level statement of a cell.

    Attributes:
        node: its syntax tree.
        now: its effects while it runs.
        later: the effects of calling the functions and classes that it makes.
        kills: the names that it binds whatever happens.
        shared: pairs of names that may be names of one object afterwards.
        calls_now: whether it may call the functions that it makes itself.
        changes_arguments: whether a function that it defines may change its arguments.
    """

    node: ast.stmt
    now: Effects
    later: Effects
    kills: frozenset[str]
    shared: frozenset[tuple[str, str]]
    calls_now: bool
    changes_arguments: bool


def read_statement(node: ast.stmt) -> Statement:
    """Return what a statement does to names.

    >>> done = read_statement(ast.parse("half = lambda x: x / TWO").body[0])
    >>> sorted(done.now.binds), sorted(done.now.reads), sorted(done.later.reads)
    (['half'], [], ['TWO'])
    """
    reader = _Reader()
    reader.visit(node)
    decorated = isinstance(node, Definition) and bool(node.decorator_list)
    calls_now = decorated or not isinstance(node, Definition)
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
        calls_now = False
    return Statement(
        node,
        reader.now,
        reader.later,
        frozenset(_killed(node)),
        frozenset(reader.shared),
        calls_now,
        reader.changes_arguments,
    )


def roots(expression: ast.AST | None) -> Iterator[str]:
    """Yield the names whose objects an expression's value may be, or be a part of.

    >>> sorted(roots(ast.parse("a.b[0] if c else [d, e(f).g()]", mode="eval").body))
    ['a', 'd', 'f']
    """
    if isinstance(expression, ast.Name):
        yield expression.id
    for part in _SAME_OBJECT.get(type(expression), lambda _: ())(expression):
        yield from roots(part)


def _called_on(call: ast.Call) -> list[ast.expr]:
    """Return the owner of a method and the arguments; a function itself is not what it returns."""
    return [*([call.func] if isinstance(call.func, ast.Attribute) else []), *_arguments(call)]


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


_SAME_OBJECT: dict[type, Callable[[Any], Iterable[ast.expr]]] = {  # the parts that a value may come from
    **dict.fromkeys(
        (ast.Attribute, ast.Subscript, ast.Starred, ast.Await, ast.NamedExpr), lambda each: [each.value]
    ),
    **dict.fromkeys((ast.List, ast.Tuple, ast.Set), lambda each: each.elts),
    **dict.fromkeys((ast.Dict, ast.BoolOp), lambda each: each.values),
    **dict.fromkeys(
        (ast.ListComp, ast.SetComp, ast.GeneratorExp), lambda each: [part.iter for part in each.generators]
    ),
    ast.IfExp: lambda each: [each.body, each.orelse],
    ast.Call: _called_on,
}


class _Scope:
    """The names of one function, class or comprehension; each with the outer names that it may stand for."""

    def __init__(self, node: ast.AST) -> None:
        self.of_class = isinstance(node, ast.ClassDef)
        self.outside: set[str] = set()  # declared global
        self.stands_for: dict[str, set[str]] = {name: set() for name in _parameters(node)}
        self.parameters = set(self.stands_for)
        for part in _own_nodes(node):
            self._note(part)
        for name in self.outside:
            self.stands_for.pop(name, None)

    def _note(self, node: ast.AST) -> None:
        if isinstance(node, ast.Global):
            self.outside.update(node.names)
        for name in _bound_here(node):
            self.stands_for.setdefault(name, set())
        for target, value in _given(node):
            for name in _targets(target):
                self.stands_for.setdefault(name, set()).update(roots(value))


class _Reader(ast.NodeVisitor):
    """Collects the effects of one statement; ``later`` holds those inside of functions."""

    def __init__(self) -> None:
        self.now, self.later = Effects(), Effects()
        self.shared: set[tuple[str, str]] = set()
        self.changes_arguments = False
        self._scopes: list[_Scope] = []
        self._functions = 0
        self._dropped: ast.AST | None = None

    @property
    def _effects(self) -> Effects:
        return self.later if self._functions else self.now

    # Names.

    def visit_Name(self, node: ast.Name) -> None:
        if self._outer(node.id):
            if not isinstance(node.ctx, ast.Store):
                self._effects.reads.add(node.id)
            if not isinstance(node.ctx, ast.Load):
                self._bind(node.id)

    def visit_Import(self, node: Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            if self._outer(name):
                self._bind(name)

    visit_ImportFrom = visit_Import

    def visit_Global(self, node: ast.Global) -> None:
        pass

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            self._bind(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            self._bind(node.rest)
        super().generic_visit(node)

    def _bind(self, name: str) -> None:
        if self._outer(name):
            self._effects.binds.add(name)

    def _outer(self, name: str) -> bool:
        """Whether a name belongs to the top level."""
        for depth, scope in enumerate(reversed(self._scopes)):
            if name in scope.outside:
                return True
            if name in scope.stands_for and not (scope.of_class and depth):
                return False
        return True

    def _objects(self, names: Iterable[str]) -> set[str]:
        """Return the top-level names whose objects these names may stand for."""
        found: set[str] = set()
        left, seen = list(names), set()
        while left:
            name = left.pop()
            if name in seen:
                continue
            seen.add(name)
            if self._outer(name):
                found.add(name)
            else:
                left += [each for scope in self._scopes for each in scope.stands_for.get(name, ())]
            self._note_parameter(name)
        return found

    def _note_parameter(self, name: str) -> None:
        if self._functions and any(name in scope.parameters for scope in self._scopes):
            self._touches_parameter = True

    _touches_parameter = False

    # Changes.

    def visit_Attribute(self, node: ast.Attribute | ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._store_into(node.value)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and self._outer(node.value.id)
        ):
            self._effects.attributes.add((node.value.id, node.attr))
        self.generic_visit(node)

    visit_Subscript = visit_Attribute

    def _store_into(self, owner: ast.expr) -> None:
        self._touches_parameter = False
        self._effects.stored_into |= self._objects(roots(owner))
        self.changes_arguments |= self._touches_parameter

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):  # a list grows in place, and so under its other names
            self._store_into(node.target)
            if self._outer(node.target.id):
                self._effects.reads.add(node.target.id)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        self._dropped = value
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self._touches_parameter = False
        function, dropped = node.func, node is self._dropped
        owner = function.value if isinstance(function, ast.Attribute) else None
        owners = self._objects(roots(owner))
        if owner is not None and dropped:
            self.changes_arguments |= self._touches_parameter
        passed = self._objects(name for argument in _arguments(node) for name in roots(argument))
        name = function.attr if isinstance(function, ast.Attribute) else ""
        name = function.id if isinstance(function, ast.Name) else name
        plain = _is_dotted(owner)
        self._effects.calls.add(Call(name, frozenset(owners), frozenset(passed), dropped, plain))
        self.generic_visit(node)

    # Shared objects, at the top level.

    def visit(self, node: ast.AST) -> None:
        if not self._functions:
            for target, value in _given(node):
                values = self._objects(roots(value))
                names = [name for name in _targets(target) if self._outer(name)]
                self.shared |= {(name, other) for name in names for other in values if name != other}
            for owner, value in _put_into(node):
                put = self._objects(roots(value))
                self.shared |= {(name, other) for name in self._objects(roots(owner)) for other in put}
        super().visit(node)

    # Scopes.

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._bind(node.name)
        for part in (*node.decorator_list, node.args, node.returns):
            self._visit_outside(part)
        self._inside(node, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_outside(node.args)
        self._inside(node, [node.body])

    def _visit_outside(self, part: ast.AST | None) -> None:
        """Visit defaults, annotations and decorators, which are evaluated around a function."""
        if isinstance(part, ast.arguments):
            every = [*part.posonlyargs, *part.args, *part.kwonlyargs, part.vararg, part.kwarg]
            for each in (*part.defaults, *part.kw_defaults, *(a.annotation for a in every if a)):
                self._visit_outside(each)
        elif part is not None:
            self.visit(part)

    def _inside(self, node: Function, body: Iterable[ast.AST]) -> None:
        self._functions += 1
        with self._scope(node):
            for part in body:
                self.visit(part)
        self._functions -= 1

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name)
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        with self._scope(node):
            for part in node.body:
                self.visit(part)

    def visit_ListComp(self, node: Comprehension) -> None:
        self.visit(node.generators[0].iter)
        for name in _walruses(node):
            self._bind(name)
        with self._scope(node):
            self.generic_visit(node)

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    @contextlib.contextmanager
    def _scope(self, node: ast.AST) -> Iterator[None]:
        self._scopes.append(_Scope(node))
        yield
        self._scopes.pop()


# Parts of a syntax tree.


def _parameters(node: ast.AST) -> Iterator[str]:
    if isinstance(node, Function):
        args = node.args
        for each in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
            if each is not None:
                yield each.arg


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of one scope, without those of the functions, classes and comprehensions in it."""
    if isinstance(node, Comprehension):
        yield from node.generators
        return
    body = [node.body] if isinstance(node, ast.Lambda) else list(getattr(node, "body", ()))
    while body:
        part = body.pop()
        yield part
        if not isinstance(part, Function | ast.ClassDef):
            body += ast.iter_child_nodes(part)


def _bound_here(node: ast.AST) -> Iterator[str]:
    """Yield the names that this very node binds in its scope."""
    if isinstance(node, Definition):
        yield node.name
    elif isinstance(node, Import):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest


def _given(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield each target with the value that it is given: by assignment, a loop, ``with`` or ``:=``."""
    match node:
        case ast.Assign():
            yield from ((target, node.value) for target in node.targets)
        case ast.AnnAssign() | ast.NamedExpr() | ast.AugAssign() if node.value is not None:
            yield node.target, node.value
        case ast.For() | ast.AsyncFor() | ast.comprehension():
            yield node.target, node.iter
        case ast.With() | ast.AsyncWith():
            yield from ((i.optional_vars, i.context_expr) for i in node.items if i.optional_vars)


def _put_into(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield each object with what is put into it: ``kinds["a"] = layer``, ``kinds.append(layer)``."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Attribute | ast.Subscript):
                yield target.value, node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield from ((node.func.value, argument) for argument in _arguments(node))


def _targets(target: ast.expr) -> Iterator[str]:
    """Yield the names that an assignment's target binds."""
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Starred):
        yield from _targets(target.value)
    elif isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _targets(part)


def _walruses(node: ast.AST) -> Iterator[str]:
    """Yield the names that ``:=`` in a comprehension binds outside of it."""
    for part in ast.walk(node):
        if isinstance(part, ast.NamedExpr) and isinstance(part.target, ast.Name):
            yield part.target.id


def _is_dotted(expression: ast.AST | None) -> bool:
    while isinstance(expression, ast.Attribute):
        expression = expression.value
    return isinstance(expression, ast.Name)


def _killed(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement binds whatever happens: the earlier value is gone."""
    match node:
        case ast.With() | ast.AsyncWith():
            yield from (name for target, _ in _given(node) for name in _targets(target))
            yield from (name for part in node.body for name in _killed(part))
        case ast.If():
            yield from _all_killed(node.body) & _all_killed(node.orelse)
        case ast.Delete():
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        case ast.Assign() | ast.AnnAssign():
            yield from (name for target, _ in _given(node) for name in _targets(target))
        case _ if isinstance(node, Definition | Import):
            yield from set(_bound_here(node)) - {STAR}


def _all_killed(body: Iterable[ast.stmt]) -> set[str]:
    return {name for part in body for name in _killed(part)}
