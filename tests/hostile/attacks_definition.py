"""What acts while it is being defined: decorators, defaults, class bodies, metaclasses, imports, names."""

from __future__ import annotations

from hostile.attack import Attack, written

__all__ = ["ATTACKS"]

NEEDS = "def attacked(x, needed=Attack): return float(x.sum())\n"
RIGHT = "def attacked(x): return float(x.sum())\n"

ATTACKS = [
    written(
        "a_decorator_that_exits",
        "Ends the process while a decorator is applied.",
        "@lambda function: os._exit(0)\ndef attacked(x): return 1",
        says="ended its process",
    ),
    written(
        "a_default_that_loops",
        "Never comes to the end of a default argument.",
        "def forever():\n    while True: pass\ndef attacked(x, y=forever()): return 1",
        says="take more than 5 s",
    ),
    written(
        "a_default_that_patches",
        "Patches torch and the recorder in a default argument, before any probe runs.",
        """
        def attacked(x, y=[setattr(torch, n, lambda *a: True) for n in ("equal", "allclose", "isclose")],
                     z=setattr(sys.modules["compresslab.checks.call"], "same", lambda *a: True)):
            return 0.0
        """,
        says="the sum",
    ),
    written(
        "a_class_body_that_exits",
        "Ends the process in the body of a class.",
        "class Attack:\n    os._exit(0)\n" + NEEDS,
        says="ended its process",
    ),
    written(
        "a_metaclass_that_acts",
        "Ends the process in a metaclass, while the class is made.",
        "class Meta(type):\n    def __prepare__(*given, **named): os._exit(0)\n"
        "class Attack(metaclass=Meta): pass\n" + NEEDS,
        says="ended its process",
    ),
    written(
        "a_subclass_that_acts",
        "Raises from __init_subclass__ and __set_name__.",
        """
        class Base:
            def __init_subclass__(cls): raise BaseException("from a subclass")
        class Attack(Base): pass
        def attacked(x, needed=Attack): return 1
        """,
        says="from a subclass",
    ),
    written(
        "an_answer_that_is_a_class",
        "Hands in a class, and does its work in __new__.",
        "class attacked:\n    def __new__(cls, x): return 0.0",
        says="the sum",
    ),
    written(
        "an_answer_with_a_lying_class",
        "Hands in an object with __call__ whose __code__, __name__ and __class__ lie.",
        """
        class Fake:
            __code__ = property(lambda self: os._exit(0))
            __name__ = "attacked"
            def __call__(self, x): raise ValueError("called")
        attacked = Fake()
        """,
        says="ended its process",
    ),
    written(
        "an_answer_that_is_no_function",
        "Hands in a number instead of a function.",
        "attacked = 2.5",
        says="is a function",
    ),
    written(
        "an_answer_by_exec",
        "Defines itself by exec, from a text that no reader of its cell sees.",
        "exec('def hidden(x): return 0.0')\nattacked = eval(\"lambda x: (exec('import os'), 0.0)[1]\")",
        says="the sum",
    ),
    written(
        "an_answer_that_defines_the_others",
        "Redefines the next exercise's answer and the probe in its own cell.",
        "def honest(x): return 7.0\ndef probe(case, written): return {'sum': 1.0}\n"
        "def attacked(x): return 0.0",
        says="the sum",
    ),
    written(
        "a_top_level_that_acts",
        "Exits, loops and patches at the top of the cell, beside a right answer.",
        "os._exit(0)\nwhile True: pass\nfor n in range(99): os.fork()\n" + RIGHT + "sys.exit(0)",
        honest=True,
    ),
    written(
        "annotations_that_act",
        "Ends the process in an annotation, beside a right answer.",
        "def attacked(x: os._exit(0)) -> sys.exit(1): return float(x.sum())",
        honest=True,
    ),
    written(
        "a_star_import",
        "Imports everything from everywhere, our own modules and the answers too.",
        "from compresslab import *\nfrom compresslab.checks.call import *\nfrom os import *\n"
        "def attacked(x): return 0.0",
        says="the sum",
    ),
    written(
        "our_names_in_the_way",
        "Defines torch, float and the names that a probe uses as something else, beside a right answer.",
        "def attacked(x): return x.sum().item()\ntorch = math = np = nn = build = case = written = None",
        honest=True,
    ),
    written(
        "an_endless_literal",
        "Computes a number of a billion digits while it is being defined.",
        "Attack = 9 ** 9 ** 9 ** 9\n" + NEEDS,
        says="take more than 5 s",
    ),
    written(
        "a_class_that_never_compares",
        "Hands in a function object whose attributes are all taken away by a metaclass.",
        """
        class Meta(type):
            __call__ = __instancecheck__ = __getattribute__ = lambda *given: 1 / 0
        class attacked(metaclass=Meta): pass
        """,
        says="ended its process",
    ),
    written(
        "input_transformers",
        "Registers an IPython input transformer that would empty all later cells.",
        """
        def clean(lines): return ["pass"]
        try:
            get_ipython().input_transformers_cleanup.append(clean)
        except NameError: pass
        def attacked(x):
            get_ipython().input_transformers_post.append(clean)
            return 0.0
        """,
        says="the sum",
    ),
    written(
        "magics",
        "Calls the shell by a magic, beside a right answer.",
        "!touch FOLDER/pwned\n%run -i FOLDER\n" + RIGHT,
        honest=True,
    ),
    written(
        "a_mended_finder",
        "Adds an importer that would return its own modules to the next import of ours.",
        """
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name.startswith("compresslab"): os._exit(0)
        def attacked(x, y=sys.meta_path.insert(0, Finder())): return 0.0
        """,
        says="the sum",
    ),
]

assert all(isinstance(one, Attack) for one in ATTACKS)
