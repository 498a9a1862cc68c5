"""Values that lie: about their type, their equality, their length, their numbers."""

# ruff: noqa: E731 (a lambda is the shortest way for a class to lie)

from __future__ import annotations

import os
import unittest.mock

import numpy as np
import torch
from hostile.attack import Attack, attack

__all__ = ["ATTACKS"]


@attack("a Liar")
def a_float_that_equals_everything(x):
    """Returns a float whose comparisons are always true."""

    class Liar(float):
        __eq__ = __le__ = __ge__ = lambda self, other: True
        __sub__ = __rsub__ = __abs__ = lambda self, *other: 0.0
        __hash__ = None

    return Liar(0.5)


@attack("a Fake")
def a_tensor_that_equals_everything(x):
    """Returns a tensor whose ==, item, shape and __torch_function__ lie."""

    class Fake(torch.Tensor):
        shape = property(lambda self: (1,))
        item = tolist = __float__ = lambda self: float(x.sum())
        __eq__ = __bool__ = lambda self, *other: True
        __torch_function__ = classmethod(lambda cls, f, types, args=(), kwargs=None: torch.tensor(True))

    return torch.zeros(()).as_subclass(Fake)


@attack("the sum")
def a_tensor_that_knows_each_shape(x):
    """Returns a tensor of another shape that claims the right one to everybody who asks."""

    class Fake(torch.Tensor):
        shape = property(lambda self: torch.Size([]))
        size = dim = numel = lambda self, *place: 1
        detach = clone = cpu = numpy = lambda self, *more: torch.zeros(())

    return torch.zeros(3, 3).as_subclass(Fake)


@attack("the sum")
def an_array_that_equals_everything(x):
    """Returns a numpy array whose comparisons and conversions lie."""

    class Fake(np.ndarray):
        __eq__ = lambda self, other: True
        __array_finalize__ = __array_wrap__ = lambda self, *more: self
        item = astype = copy = lambda self, *more: np.float64(7)
        __hash__ = None

    return np.zeros(()).view(Fake)


@attack("a Chameleon")
def an_array_in_disguise(x):
    """Returns an object whose __array__, __float__ and __index__ answer whatever is asked."""

    class Chameleon:
        __array__ = lambda self, *more, **named: np.asarray(float(x.sum()))
        __float__ = lambda self: float(x.sum())
        __index__ = __int__ = __len__ = lambda self: 1

    return Chameleon()


@attack("a object")
def an_object_with_a_false_class(x):
    """Returns an object that says it is a tensor by __class__ and by its type's name."""
    kind = type("Tensor", (), {"__class__": property(lambda self: torch.Tensor), "array": 0.0})
    kind.__module__ = "torch"
    return kind()


@attack("a MagicMock")
def a_mock(x):
    """Returns a mock that answers every question with another mock."""
    return unittest.mock.MagicMock(spec=torch.Tensor)


@attack("a generator")
def a_generator(x):
    """Returns a generator that would act when it is read."""

    def acts():
        os._exit(0)
        yield 1

    return acts()


@attack("a function")
def a_lambda(x):
    """Returns a function instead of a number."""
    return lambda *given: True


@attack("a Pickled")
def a_reduce(x):
    """Returns an object that runs a command when it is unpickled."""

    class Pickled:
        def __reduce__(self):
            return os.system, ("touch /tmp/pwned",)

    return Pickled()


@attack("a ndarray")
def an_array_of_objects(x):
    """Returns an array of objects, which only pickle could carry."""

    class Pickled:
        def __reduce__(self):
            return os._exit, (0,)

    return np.array([Pickled()], dtype=object)


@attack("a ndarray")
def a_record_array(x):
    """Returns an array with a structured dtype and a void one within it."""
    return np.zeros(1, dtype=[("sum", "f8"), ("more", "V100")])


@attack("a list")
def a_list_that_holds_itself(x):
    """Returns a list and a dict that hold each other, to send a reader round for ever."""
    ring = []
    ring.append({"ring": ring, 1: ring})
    return ring


@attack("a Endless")
def an_endless_sequence(x):
    """Returns a list whose length and iteration never end."""

    class Endless(list):
        __len__ = lambda self: 3

        def __iter__(self):
            while True:
                yield self

    return Endless([1, 2, 3])


@attack("a Tensor")
def a_tensor_larger_than_the_world(x):
    """Returns a tensor of 10^12 numbers that takes four bytes."""
    return torch.zeros(1).expand(10**12)


@attack("a list")
def tensors_without_numbers(x):
    """Returns tensors that are meta, sparse, quantized or nested."""
    return [
        torch.empty(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.zeros(3).to(torch.float8_e4m3fn),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ]


@attack("NaN")
def a_nan(x):
    """Returns NaN, which no comparison catches that is written the wrong way round."""
    return float("nan")


@attack("infinite")
def infinity(x):
    """Returns infinity, near which a relative tolerance is infinite too."""
    return float("inf")


@attack("a int")
def an_enormous_integer(x):
    """Returns an integer of a million bits."""
    return 1 << 1_000_000


@attack("a bool")
def a_bare_truth(x):
    """Returns True, which is a number too."""
    return True


@attack("a Tensor of shape")
def another_array_of_the_same_sum(x):
    """Returns the input itself, hoping that the judge sums it."""
    return x


@attack("changes its input")
def a_spoiled_input(x):
    """Empties its input, so that nothing is left and the sum is trivially nothing."""
    x.zero_()
    return 0.0


@attack("raises")
def a_resized_input(x):
    """Frees its input's memory under the reader's feet."""
    x.untyped_storage().resize_(0)
    return 0.0


@attack("the sum")
def a_guess_by_counting_calls(x):
    """Counts its calls and answers with what the author's example gave."""
    a_guess_by_counting_calls.calls = getattr(a_guess_by_counting_calls, "calls", 0) + 1
    return {1: 1.5, 2: 0.5}.get(a_guess_by_counting_calls.calls, 0.0)


@attack(honest=True)
def a_view_of_the_input(x):
    """Returns a view into its input, changes the input later from a thread, and is right."""
    return x.expand(1, -1).sum()


@attack("a Anything", hole="why_zeros_cost")
def a_letter_that_is_every_letter():
    """Answers the question with a string that equals every letter."""

    class Anything(str):
        __eq__ = __contains__ = lambda self, other: True
        strip = lower = rstrip = lambda self, *more: self
        __hash__ = str.__hash__

    return Anything("x")


@attack("is one of", hole="why_zeros_cost")
def all_letters_at_once():
    """Answers the question with every letter."""
    return "a) b) c) d)"


@attack("whole number", hole="count_parameters")
def an_integer_that_equals_everything(model):
    """Returns an int whose comparisons are always true."""

    class Liar(int):
        __eq__ = lambda self, other: True
        __ne__ = lambda self, other: False
        __hash__ = int.__hash__

    return Liar(7)


@attack("changes its input", hole="count_parameters")
def a_spoiled_network(model):
    """Empties the network, so that nothing has no parameters."""
    model._modules.clear()
    model._parameters.clear()
    return 0


@attack("a Fake", hole="read_interval")
def a_tuple_that_is_every_tuple(ratios, resamples):
    """Returns a tuple whose length, entries and equality lie."""

    class Fake(tuple):
        __slots__ = ()
        __len__ = lambda self: 3
        __getitem__ = lambda self, place: 1.0
        __eq__ = lambda self, other: True
        __hash__ = None

    return Fake((1.0, 1.0, "faster"))


ATTACKS = [value for value in list(vars().values()) if isinstance(value, Attack)]
