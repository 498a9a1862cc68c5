"""The backward slice of a notebook: the statements that made what stands at one place in it.

The notebook is a program: its top-level statements in the order of its cells. Something is asked for at a
place in it, such as the function at its check. From there the program is read backwards. For each name that
is needed the statements count that bind it, up to the one that binds it whatever happens, and those that
change its object, also under another name. What these need in turn counts as of *their* place. A function
looks up the names in its body when it is called, so those count as of the place where it is called, and not
where it is written.

Nothing is run here, and nothing below the place counts. Source: Mark Weiser, "Program slicing", IEEE
Transactions on Software Engineering SE-10(4), 1984.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from compresslab.errors import DamagedFile
from compresslab.grading.submission.statements import STAR, Call, Import, Statement

__all__ = ["MENUS", "Program", "Slice"]

MENUS = ("check", "hint", "reveal", "yours")  # in the order in which ``lab(...)`` returns them
MOST_DEMANDS = 200_000  # of one slice: a lab's own notebook has some hundreds
CODE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)

# What shows an object, or takes time, and changes nothing.
SHOWING = frozenset({"matplotlib", "IPython", "ipywidgets", "logging", "pprint", "rich", "time", "timeit"})
SHOWS = frozenset(
    {"print", "display", "len", "repr", "str", "type", "help", "isinstance", "metric", "verdict"}
)
# What changes its object although it returns something; by custom all else that does returns None.
CHANGES = frozenset({"pop", "popitem", "setdefault", "next", "send", "setattr", "delattr"})


@dataclass(frozen=True)
class Slice:
    """Statements by index, in their order, and the names that nothing above them binds.

    ``missing`` are those that are needed at the slice's own place, and not only by a statement further up.
    """

    statements: tuple[int, ...] = ()
    unbound: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Demand:
    """A name, the place where its value is needed, and where a function in that value may be called."""

    name: str
    place: int
    called: int


@dataclass
class _Reach:
    """What calling a function may do to names at the top level, by itself and through others."""

    binds: set[str] = field(default_factory=set)
    stored_into: set[str] = field(default_factory=set)
    calls: set[Call] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.binds) + len(self.stored_into) + len(self.calls)

    def join(self, other: _Reach) -> None:
        self.binds |= other.binds
        self.stored_into |= other.stored_into
        self.calls |= other.calls


class Program:
    """Top-level statements in their order, and which of them touch which name.

    Args:
        statements: in their order.
        known: names that need no statement, such as builtins.

    ``menus`` tells which names stand for the lab's menus, such as ``check``.
    """

    def __init__(self, statements: Sequence[Statement], *, known: Set[str] = frozenset()) -> None:
        self.statements = tuple(statements)
        self._known = known
        self.menus = dict(_menus(self.statements)) or {name: name for name in MENUS}
        self._values = _names_of_values(self.statements) - self.menus.keys()
        self._showing = _names_of_packages(self.statements, SHOWING)
        self._changing = {name for s in self.statements if s.changes_arguments for name in s.now.binds}
        self._reach = _reach(self.statements)
        self._partners = _partners(self.statements, self._values)
        self._classes = _classes(self.statements)
        self._binders = self._places(self._bound_by)
        self._changers = self._places(self._changed_by)

    def _places(self, names_of: Callable[[Statement], Iterable[str]]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for index, statement in enumerate(self.statements):
            for name in names_of(statement):
                found[name].append(index)
        return found

    def slice(self, wanted: Statement, place: int) -> Slice:
        """Return the statements above ``place`` that a statement there needs.

        Args:
            wanted: the statement; it is no part of the program itself.
            place: the number of statements that stand above it.

        Raises:
            DamagedFile: following the program would take too long.
        """
        found: set[int] = set()
        unbound: set[_Demand] = set()
        seen: set[_Demand] = set()
        left = list(self._needs(wanted, place, place))
        while left:
            demand = left.pop()
            if demand in seen:
                continue
            seen.add(demand)
            if len(seen) > MOST_DEMANDS:
                raise DamagedFile(
                    "the notebook's statements depend on each other in too many ways to follow; expected a "
                    "lab's notebook; move what the answer needs into its own cell and submit again"
                )
            touching = list(self._touching(demand.name, demand.place))
            found.update(touching)
            if not any(self._may_bind(index, demand.name) for index in touching):
                unbound.add(demand)
            for index in touching:
                left += self._needs(self.statements[index], index, demand.called)
        return Slice(
            tuple(sorted(found)),
            frozenset(demand.name for demand in unbound),
            frozenset(demand.name for demand in unbound if demand.place == place),
        )

    def binders(self, name: str, place: int) -> list[int]:
        """Return the statements above ``place`` that may bind a name, in their order."""
        return [index for index in self._binders.get(name, ()) if index < place]

    def _touching(self, name: str, place: int) -> Iterator[int]:
        """Yield upwards from ``place`` what binds a name or changes its object, to what replaces it."""
        changed = [name, *self._partners.get(name, ())]
        changed += {each for one in changed for each in self._classes.get(one, ())}
        lists = [self._binders.get(name), self._binders.get(STAR), *(self._changers.get(n) for n in changed)]
        for index in sorted({i for each in lists for i in each or () if i < place}, reverse=True):
            statement = self.statements[index]
            offered = STAR in statement.now.binds and _star_offers(statement, name)
            if STAR not in statement.now.binds or offered is not False:
                yield index
            if (name in statement.kills or offered is True) and not self._raises(index):
                return

    def _raises(self, index: int) -> bool:
        """Whether a statement reads a name that nothing above it binds: then it replaces nothing."""
        stars = self._binders.get(STAR, [index])[0] < index
        reads = self.statements[index].now.reads - self._known
        return not stars and any(self._binders.get(name, [index])[0] >= index for name in reads)

    def _may_bind(self, index: int, name: str) -> bool:
        statement = self.statements[index]
        return STAR in statement.now.binds or name in self._bound_by(statement)

    def _needs(self, statement: Statement, place: int, called: int) -> Iterator[_Demand]:
        """Yield what a statement needs, if what it makes may be called at ``called``."""
        for name in self._reads(statement.now.reads, statement.now.attributes):
            yield _Demand(name, place, place)
            yield _Demand(name, place, called)
        for name in self._reads(statement.later.reads, statement.later.attributes):
            yield _Demand(name, called, called)
            if statement.calls_now:
                yield _Demand(name, place, place)

    def _reads(self, names: Iterable[str], attributes: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Yield the names, and ``yours.unfold`` for an answer that is taken from the menu."""
        yield from names
        yield from (f"yours.{name}" for owner, name in attributes if self.menus.get(owner) == "yours")

    # What a statement binds and changes, by itself and through the functions that it calls.

    def _bound_by(self, statement: Statement) -> set[str]:
        names = set(statement.now.binds)
        for function in statement.now.reads & self._reach.keys():
            names |= self._reach[function].binds
        for call in statement.now.calls:  # check.unfold(unfold) makes yours.unfold
            if any(self.menus.get(owner) in ("check", "reveal") for owner in call.owners):
                names.add(f"yours.{call.name}")
        return names

    def _changed_by(self, statement: Statement) -> set[str]:
        names = set(statement.now.stored_into)
        for call in statement.now.calls:
            names.update(self._changed_by_call(call))
            if isinstance(statement.node, ast.Expr | ast.If) and call.dropped and call.plain:
                names |= call.owners - self._showing  # torch.set_default_dtype(torch.float64)
        for function in statement.now.reads & self._reach.keys():
            names |= self._reach[function].stored_into
            for call in self._reach[function].calls:
                if self._is_for_effect(call):
                    names |= self._values.intersection(self._changed_by_call(call))
        return names - self.menus.keys()

    def _changed_by_call(self, call: Call) -> Iterator[str]:
        """Yield the names whose objects a call may change."""
        yield from call.owners & self._values
        if call.owners & (self._showing | self.menus.keys()) or call.name in SHOWS:
            return
        if self._is_for_effect(call):
            yield from call.passed & self._values

    def _is_for_effect(self, call: Call) -> bool:
        """Whether a call changes something, by what becomes of its result and by its name."""
        return call.dropped or call.name.endswith("_") or call.name in CHANGES or call.name in self._changing


# The whole program at once.


def _menus(statements: Sequence[Statement]) -> Iterator[tuple[str, str]]:
    """Yield the names that ``check, hint, reveal, yours = lab("00_measuring")`` binds, each with its menu."""
    for statement in statements:
        match statement.node:
            case ast.Assign(
                targets=[ast.Tuple(elts=names)],
                value=ast.Call(func=ast.Name(id="lab") | ast.Attribute(attr="lab")),
            ):
                yield from (
                    (n.id, menu) for n, menu in zip(names, MENUS, strict=False) if isinstance(n, ast.Name)
                )


def _names_of_values(statements: Sequence[Statement]) -> set[str]:
    """Return the names that are bound otherwise than by ``import``, ``def`` and ``class``."""
    return {name for s in statements if not isinstance(s.node, CODE) for name in s.now.binds}.union(
        *(s.later.binds for s in statements)
    )


def _names_of_packages(statements: Sequence[Statement], packages: frozenset[str]) -> set[str]:
    """Return the names that imports from these packages bind."""
    found: set[str] = set()
    for statement in statements:
        if isinstance(statement.node, Import):
            module = getattr(statement.node, "module", None) or statement.node.names[0].name
            if module.partition(".")[0] in packages:
                found |= statement.now.binds
    return found


def _reach(statements: Sequence[Statement]) -> dict[str, _Reach]:
    """Return for each name what calling it may do, without the names that do nothing."""
    reach: dict[str, _Reach] = defaultdict(_Reach)
    through: dict[str, set[str]] = defaultdict(set)
    classes = {name for s in statements if isinstance(s.node, ast.ClassDef) for name in s.now.binds}
    for statement in statements:
        later = statement.later
        own = _Reach(later.binds, later.stored_into, {c for c in later.calls if c.owners or c.passed})
        for name in statement.now.binds:
            reach[name].join(own)
            through[name] |= later.reads | _may_hold(name, statement, classes)
    grown = True
    while grown:
        sizes = {name: len(each) for name, each in reach.items()}
        for name, others in through.items():
            for other in others & reach.keys():
                reach[name].join(reach[other])
        grown = sizes != {name: len(each) for name, each in reach.items()}
    return {name: each for name, each in reach.items() if len(each)}


def _may_hold(name: str, statement: Statement, classes: Set[str]) -> set[str]:
    """Return the functions that calling ``name`` may call: those it wraps, or the class of an object."""
    if isinstance(statement.node, CODE):
        return statement.now.reads  # decorators, base classes
    wrapped = {other for one, other in statement.shared if one == name}
    return wrapped | {call.name for call in statement.now.calls if call.name in classes}


def _partners(statements: Sequence[Statement], values: Set[str]) -> Mapping[str, set[str]]:
    """Return for each name of a value the other names that may be names of its object, or of a part of it."""
    groups: dict[str, set[str]] = {}
    for statement in statements:
        for one, other in statement.shared:
            if one in values and other in values:
                joined = groups.get(one, {one}) | groups.get(other, {other})
                groups.update(dict.fromkeys(joined, joined))
    return {name: names - {name} for name, names in groups.items()}


def _classes(statements: Sequence[Statement]) -> Mapping[str, set[str]]:
    """Return for each object or class the classes whose attributes it has, as far as names tell."""
    classes = {name for s in statements if isinstance(s.node, ast.ClassDef) for name in s.now.binds}
    found: dict[str, set[str]] = defaultdict(set)
    for statement in statements:
        made = {call.name for call in statement.now.calls}
        bases = statement.now.reads if isinstance(statement.node, ast.ClassDef) else set()
        for name in statement.now.binds:
            found[name] |= classes & (made | bases)
    for name in found:
        reached = list(found[name])
        for each in reached:  # the list grows: bases of bases
            reached += [base for base in found.get(each, ()) if base not in reached]
        found[name] = set(reached)
    return found


def _star_offers(statement: Statement, name: str) -> bool | None:
    """Whether a star import binds a name; None where its module is not loaded here, so that nobody knows."""
    module = sys.modules.get(getattr(statement.node, "module", None) or "")
    if module is None:
        return None
    offered = getattr(module, "__all__", None)
    return name in offered if offered is not None else not name.startswith("_") and hasattr(module, name)
