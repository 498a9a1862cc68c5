"""A hole's solution in the lab's source is the exercise's first right answer, which ``reveal`` hands over."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest

from compresslab.authoring.instructor_notebook import holes, instructor_notebook
from compresslab.course import all_labs
from compresslab.data.location import REPOSITORY


class Plain(ast.NodeTransformer):
    """Leaves out what differs between a notebook and a module without any effect on the answer."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        self.generic_visit(node)
        return None if node.value is None else ast.Assign([node.target], node.value)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        functional = ast.Attribute(ast.Name("nn", ast.Load()), "functional", ast.Load())
        return functional if node.id == "F" else node  # a notebook has nn alone


def plain(text: str) -> str:
    """Return a function's tree without its name, docstring and annotations."""
    function = next(n for n in ast.parse(textwrap.dedent(text)).body if isinstance(n, ast.FunctionDef))
    function.name = "answer"
    if ast.get_docstring(function):
        function.body = function.body[1:]
    return ast.dump(Plain().visit(function))


@pytest.mark.parametrize("lab", all_labs(), ids=lambda lab: lab.name)
def test_the_solution_in_the_source_is_the_first_right_answer(lab):
    source = (REPOSITORY / "solutions" / lab.name / f"{lab.name}.py").read_text(encoding="utf-8")
    written = holes(instructor_notebook(lab, source))
    code = [exercise for exercise in lab.exercises if not exercise.choices]
    assert code
    unlike = [e.name for e in code if plain(written[e.name].source) != plain(inspect.getsource(e.right[0]))]
    assert unlike == []


def test_another_solution_is_told_and_annotations_are_not():
    ours = "def f(x: int) -> int:\n    '''Half.'''\n    y: int = F.relu(x)\n    return y // 2"
    assert plain(ours) == plain("def g(x):\n    y = nn.functional.relu(x)\n    return y // 2")
    assert plain(ours) != plain("def g(x):\n    y = nn.functional.relu(x)\n    return y // 3")
