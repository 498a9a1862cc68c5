"""Which convolutions lose the same channels: sums tie the convolutions that write them.

Source: Fang et al. 2023, "DepGraph: towards any structural pruning", arXiv:2301.12900.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake
from compresslab.checks.record import Recorded

__all__ = ["EXERCISE"]

Operation = tuple[str, str, list[str]]  # name, kind, inputs


def cases(rng: torch.Generator) -> Iterator[Case]:
    def drawn() -> list[Operation]:
        """Three to five blocks, each with or without a projection in its shortcut."""
        blocks = int(torch.randint(3, 6, (), generator=rng))
        return _network(*torch.randint(0, 2, (blocks,), generator=rng).bool().tolist())

    yield "one block", {"operations": _network(False)}
    yield "three blocks in a row", {"operations": _network(False, False, False)}
    yield "a projection in the shortcut", {"operations": _network(False, True, False)}
    yield "any blocks", {"operations": drawn()}
    yield "names that tell nothing", {"operations": _renamed(drawn(), rng)}
    for title, text in _SMALL.items():
        yield title, {"operations": _read(text)}


_SMALL = {
    "no shortcut": "a conv input, b relu a, c conv b, d linear c",
    "sums that read convolutions directly": "a conv input, b conv a, c add b a, d conv c, e add d c, "
    "f linear e",
    "sums apart, then summed": "a conv input, b conv a, c conv b, d conv c, e add a b, f add c d, g conv f, "
    "h relu f, i add e h, j conv i, k linear j",
    "two sums that share a convolution": "a conv input, b conv a, c conv b, d norm b, e add a d, f add b c, "
    "g conv f",
    "a sum of three": "a conv input, b norm a, c conv b, d conv b, e conv d, f add c e b, g linear f",
}


def _read(text: str) -> list[Operation]:
    """Operations from words: ``name kind input …``, with commas between."""
    words = [operation.split() for operation in text.split(", ")]
    return [(name, kind, inputs) for name, kind, *inputs in words]


def _network(*projections: bool) -> list[Operation]:
    """A stem, a residual block for each argument, a head."""
    text, x = "stem conv input, stem_norm norm stem, stem_relu relu stem_norm", "stem_relu"
    for place, projection in enumerate(projections, start=1):
        text += ", #conv1 conv x, #norm1 norm #conv1, #relu1 relu #norm1, #conv2 conv #relu1"
        text += ", #norm2 norm #conv2" + projection * ", #shortcut conv x, #norm3 norm #shortcut"
        text += f", #add add #norm2 {'#norm3' if projection else x}, #relu2 relu #add"
        text = text.replace(" x,", f" {x},").replace("#", f"block{place}_")
        x = f"block{place}_relu2"
    return _read(f"{text}, pool pool {x}, flatten flatten pool, head linear flatten")


def _renamed(operations: list[Operation], rng: torch.Generator) -> list[Operation]:
    """The same with numbers for names, and each sum's shortcut first."""
    numbers = torch.randperm(len(operations), generator=rng).tolist()
    new = {"input": "input"}
    new |= {name: f"v{number}" for (name, _, _), number in zip(operations, numbers, strict=True)}
    return [(new[name], kind, [new[x] for x in reversed(inputs)]) for name, kind, inputs in operations]


def probe(case: dict[str, Any], residual_groups: Callable[..., Any]) -> dict[str, Any]:
    groups = residual_groups(case["operations"])
    if isinstance(groups, list) and all(isinstance(group, list) for group in groups):
        groups = sorted((sorted(group, key=str) for group in groups), key=str)  # any order is right
    return {"groups": groups}


def judge(case: dict[str, Any], record: Record) -> None:
    """Each convolution once, and nothing else; then its group."""
    lists = _entries(record["groups"], "the answer is a list of groups")
    groups = [[_name(name) for name in _entries(group, "a group is a list of names")] for group in lists]
    names = [name for group in groups for name in group]
    wanted = _together(case["operations"])
    strange = next((name for name in names if name not in wanted), "")
    expect.true(not strange, f"{strange!r} in your groups is no convolution", strange=strange)
    lost = next((name for name in wanted if name not in names), "")
    expect.true(not lost, f"the convolution {lost!r} is in none of your groups", lost=lost)
    twice = next((name for name in wanted if names.count(name) > 1), "")
    expect.true(not twice, f"the convolution {twice!r} is in several of your groups", twice=twice)
    mine = {name: group for group in groups for name in group}
    for name, group in wanted.items():
        yours, right = ", ".join(mine[name]), ", ".join(group)
        reason = f"the group of {name!r} is {right}; yours is {yours}"
        expect.true(yours == right, reason, name=name, yours=yours, wanted=right)


def _entries(value: Recorded, reason: str) -> tuple[Recorded, ...]:
    expect.true(value.type == "list", f"{reason}; yours is {expect.came(value)}")
    return value.items or ()


def _name(value: Recorded) -> str:
    expect.true(value.type == "str", f"a group is a list of names (str); yours has {expect.came(value)}")
    return value.text


def _together(operations: list[Operation]) -> dict[str, list[str]]:
    """{convolution: its group}: who reaches whom along operations that make no channels of their own."""
    places = {name: place for place, (name, _, _) in enumerate(operations)}
    linked = torch.eye(len(places), dtype=torch.float64)
    for name, kind, inputs in operations:
        for x in inputs if kind not in ("conv", "linear") else ():
            linked[places[name], places[x]] = linked[places[x], places[name]] = 1
    reached = torch.linalg.matrix_power(linked, len(places)) > 0  # paths of any length
    convs = [name for name, kind, _ in operations if kind == "conv"]
    return {a: sorted(b for b in convs if reached[places[a], places[b]]) for a in convs}


def by_sets(operations: list[Operation]) -> list[list[str]]:
    writers: dict[str, set[str]]
    groups: list[set[str]]
    writers, groups = {"input": set()}, []
    for name, kind, inputs in operations:
        writers[name] = {name} if kind == "conv" else set().union(*(writers[x] for x in inputs))
        if kind in ("conv", "add"):
            tied = [group for group in groups if group & writers[name]]
            groups = [group for group in groups if group not in tied] + [writers[name].union(*tied)]
    return [sorted(group) for group in groups]


def by_relabelling(operations):
    return _listed(_teams(operations), _convs(operations))


def by_waiting(operations):
    """Everybody takes the smallest label around until nothing changes."""
    labels = {name: place for place, (name, _, _) in enumerate(operations)}
    for _ in operations:
        for name, kind, inputs in operations:
            if kind not in ("conv", "linear"):
                least = min(labels[value] for value in (name, *inputs))
                labels |= dict.fromkeys((name, *inputs), least)
    return _listed(labels, _convs(operations))


def _teams(operations: list[Operation]) -> dict[str, str]:
    """{value: its team}: a team is renamed as soon as it meets another."""
    team = {"input": "input"}
    for name, kind, inputs in operations:
        team[name] = name
        for x in inputs if kind not in ("conv", "linear") else []:
            team = {n: team[name] if own == team[x] else own for n, own in team.items()}
    return team


def _listed(labels: dict[str, Any], names: list[str]) -> list[list[str]]:
    return [sorted(n for n in names if labels[n] == own) for own in {labels[n] for n in names}]


def _convs(operations: list[Operation]) -> list[str]:
    return [name for name, kind, _ in operations if kind == "conv"]


def _writers(kind: str, name: str, before: list[set[str]]) -> set[str]:
    return {name} if kind == "conv" else set().union(*before)


def _sums(operations: list[Operation], writers: Callable[..., set[str]] = _writers) -> list[set[str]]:
    """The writers of each sum; ``writers`` says who writes a value, given those of its inputs."""
    known: dict[str, set[str]] = {"input": set()}
    for name, kind, inputs in operations:
        known[name] = writers(kind, name, [known[x] for x in inputs])
    return [set().union(*(known[x] for x in inputs)) for _, kind, inputs in operations if kind == "add"]


def _merged(operations: list[Operation], sums: list[set[str]]) -> list[list[str]]:
    """Every convolution and these ties, united where they share one."""
    groups = [{name} for name in _convs(operations)]
    for tied in sums:
        groups = [g for g in groups if not g & tied] + [tied.union(*(g for g in groups if g & tied))]
    return [sorted(group) for group in groups if group]


def _with_singles(operations: list[Operation], groups: list[set[str]]) -> list[list[str]]:
    single = [[name] for name in _convs(operations) if not any(name in group for group in groups)]
    return [*map(sorted, groups), *single]


alone = mistake(
    "does not follow the shortcut",
    says="{name} should go with {wanted}, and you leave it alone: a sum needs the same channels from both "
    "its sides, so what its branch loses its shortcut must lose as well",
)(lambda operations: [[name] for name in _convs(operations)])

one_step_back = mistake(
    "looks only at what a sum reads directly",
    says="{name} should go with {wanted}, and with you it goes with {yours}: between a convolution and "
    "the sum there may be a norm or a relu; walk back until you meet a convolution",
)(lambda ops: _merged(ops, [{*xs} & {*_convs(ops)} for _, kind, xs in ops if kind == "add"]))

a_group_a_sum = mistake(
    "makes a group of each sum",
    says="{twice} is in several of your groups: the next block adds to the same channels, so groups that "
    "share a convolution are one group",
)(lambda ops: _with_singles(ops, _sums(ops, lambda kind, name, xs: _writers(kind, name, xs[:1]))))


@mistake(
    "joins the first group it meets only",
    says="{twice} is in several of your groups: one sum can tie two groups that were apart until then; "
    "unite all groups that share a convolution with it, not just the first",
)
def first_group_only(operations):
    groups: list[set[str]] = []
    for tied in _sums(operations):
        met = next((group for group in groups if group & tied), None)
        groups = [*groups, set(tied)] if met is None else [g | tied if g is met else g for g in groups]
    return _with_singles(operations, groups)


inside_too = mistake(
    "takes the convolutions inside a block along",
    says="{name} should be with {wanted}, and with you it is with {yours}: a convolution makes new channels, "
    "as many as it likes, so the walk back from a sum ends at the first one it meets",
)(lambda ops: _merged(ops, _sums(ops, lambda kind, name, before: {name}.union(*before) & {*_convs(ops)})))


@mistake(
    "walks through the projection",
    says="{name} should be with {wanted}, and with you it is with {yours}: a 1 × 1 convolution in the "
    "shortcut is a convolution like any other, and what comes before it keeps channels of its own",
)
def through_projections(operations):
    writers: dict[str, set[str]] = {"input": set()}
    passing, ties = dict(writers), []  # passing: the writers, and those of what the last convolution reads
    for name, kind, inputs in operations:
        before = set().union(*(writers[x] for x in inputs))
        writers[name] = {name} if kind == "conv" else before
        passing[name] = writers[name] | before if kind in ("conv", "add") else passing[inputs[0]]
        if kind == "add":
            ties.append(writers[inputs[0]].union(*(passing[x] for x in inputs[1:])))
    return _merged(operations, ties)


without_stem = mistake(
    "forgets the stem",
    says="{name} should go with {wanted}, and with you it goes with {yours}: the first block's shortcut "
    "comes from the first convolution, which is in no block and in this group all the same",
)(lambda ops: _merged(ops, [tied - {ops[0][0]} for tied in _sums(ops)]))

without_singles = mistake(
    "leaves out convolutions that stand alone",
    says="{lost} is in none of your groups: no sum ties it, so it is a group of one, and the freest of all",
)(lambda ops: [group for group in by_sets(ops) if len(group) > 1])

every_name = mistake(
    "lists norms and sums as well",
    says="{strange} is in one of your groups and is no convolution: a norm or a sum hands channels on, "
    "and is cut along with whoever makes them; list the convolutions only",
)(lambda ops: _listed(_teams(ops), [name for name, _, _ in ops]))

readers = mistake(
    "groups the convolutions that read the same",
    says="{name} should be with {wanted}, and with you it is with {yours}: convolutions that read the same "
    "value share their inputs; asked for is who shares its outputs, those that write into one sum",
)(lambda ops: _listed({name: xs[0] for name, _, xs in ops}, _convs(ops)))


EXERCISE = Exercise(
    name="residual_groups",
    points=3,
    minutes=12,
    difficulty=3,
    statement="residual_groups(operations) says which convolutions must lose the same output channels.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_sets, by_relabelling, by_waiting),
    mistakes=(
        alone,
        one_step_back,
        a_group_a_sum,
        first_group_only,
        inside_too,
        through_projections,
        without_stem,
        without_singles,
        every_name,
        readers,
    ),
    hints=(
        Hint(
            "I do not see why two convolutions should belong together",
            "a + b adds channel 0 to channel 0, and so on. If a loses channel 3 and b does not, the two no "
            "longer fit. Who made a's channels, and who made b's?",
        ),
        Hint(
            "I find pairs, and the next block breaks them",
            "Carry a set along: writers[name] is {name} for a conv, otherwise the union of writers[x] over "
            "its inputs x, with writers['input'] empty. The writers of an add go together, and so do all "
            "groups that have one of them.",
        ),
        Hint(
            "a convolution stands in several groups",
            "tied = [group for group in groups if group ____ writers[name]]        # these become one",
        ),
    ),
)
