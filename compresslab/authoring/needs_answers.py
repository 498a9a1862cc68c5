"""The cells of a lab that cannot succeed while a hole is empty, found by the names that they use.

The students' edition lets Run All continue after these cells (see ``editions``). Nothing is run here.
"""

from __future__ import annotations

import ast

from nbformat import NotebookNode

from compresslab.authoring.instructor_notebook import code_cells, holes

__all__ = ["cells_that_need_answers"]

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_ADDS = ("add", "append", "extend", "insert", "setdefault", "update")


def cells_that_need_answers(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells that cannot succeed while a hole is empty.

    These are the checks, the cells that use ``yours`` or a hole's function, and the cells that use a name
    which only such a cell has defined.
    """
    needed, missing = [], {"yours", *holes(notebook)}
    for cell in code_cells(notebook):
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("solution"):
            continue
        reads, defines = _names(cell.source)
        if marks.get("grade") or reads & missing:
            needed.append(cell)
            missing |= defines
        elif "yours" not in defines:
            missing -= defines
    return needed


def _names(source: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell needs from other cells, and those that it defines or extends.

    >>> reads, defines = _names("import math; x = [half(y) for y in ys]; found['x'] = math.sqrt(x[0])")
    >>> sorted(reads), sorted(defines)
    (['found', 'half', 'ys'], ['found', 'math', 'x'])
    """
    reads: set[str] = set()
    defines: set[str] = set()
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # IPython's own lines, such as %matplotlib
        return reads, defines
    for statement in statements:
        own = _defined(statement)
        first = own if isinstance(statement, ast.For | ast.With) else set()
        reads |= _read(statement, defines | first)
        defines |= own | _added_to(statement)
    return reads, defines


def _read(node: ast.AST, known: set[str]) -> set[str]:
    """Return the names read below a node, without known ones and the variables of inner functions."""
    if isinstance(node, ast.Name):
        return {node.id} - known if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return ({node.target.id} - known) | _read(node.value, known)
    if isinstance(node, _COMPREHENSIONS):
        known = known.union(*(_stored(part.target) for part in node.generators))
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        arguments = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        known = known | arguments | _stored(node)
    return set().union(*(_read(child, known) for child in ast.iter_child_nodes(node)))


def _defined(node: ast.AST) -> set[str]:
    """Return the names that a statement binds in its cell."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    if isinstance(node, (*_COMPREHENSIONS, ast.Lambda)):
        return set()
    return set().union(*map(_defined, ast.iter_child_nodes(node)))


def _added_to(statement: ast.stmt) -> set[str]:
    """Return the names of values that a statement changes: ``found["x"] = 1``, ``rows.append(row)``."""
    changed = [
        node.value
        for node in ast.walk(statement)
        if (isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.Attribute) and node.attr in _ADDS)
    ]
    return set().union(*map(_root, changed))


def _root(value: ast.expr) -> set[str]:
    """Return ``{"found"}`` for ``found.rows[0]``; nothing if the value has no name."""
    while isinstance(value, ast.Subscript | ast.Attribute):
        value = value.value
    return {value.id} if isinstance(value, ast.Name) else set()


def _stored(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
