"""Integers that remember the module attribute or the tensor size they came from (docs/design.md, section 4).

While a model is traced, the integers in its attributes and in the shapes of labelled tensors are `TracedInt`s. Where
one arrives as a size or a bound, its expression says how to rewrite the attribute once channels are gone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from typing_extensions import Self


@dataclass(frozen=True)
class Attribute:
    """An integer in `vars(module)`: `module.key`, or `module.key[index]` inside a list or tuple."""

    module: str
    key: str
    index: int | None = None

    def __str__(self) -> str:
        path = f"{self.module}.{self.key}" if self.module else self.key
        return path if self.index is None else f"{path}[{self.index}]"


@dataclass(eq=False, slots=True)  # frozen ones take long to make
class Extent:
    """The size of a tensor along a dimension: the labels there, one row per position."""

    labels: np.ndarray  # (size, m)
    columns: bool = False  # the columns of a table: each row loses its own
    sheet: np.ndarray | None = None  # the sheet that the labels were taken from


@dataclass(frozen=True, eq=False)
class Operation:
    """An integer computed from two others."""

    name: str  # a key of OPERATIONS
    left: Expression
    right: Expression


Expression = Attribute | Extent | Operation | int

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
}


DECISIONS: dict[str, Callable[[int, int], int]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "%": operator.mod,
    "&": operator.and_,
}


class Listener(Protocol):
    """Who wants to know what becomes of traced integers."""

    def compared(self, one: TracedInt, other: int) -> None:
        """Two integers turned out equal."""

    def decided(self, one: TracedInt, name: str, other: int, result: int) -> None:
        """The code went a way that depends on `one NAME other` being `result`."""

    def as_number(self, number: TracedInt | TracedFloat) -> None:
        """An integer went into arithmetic that leaves the integers."""


class TracedFloat(float):
    """A number proportional to a power of an integer: such as the scale of attention, `head_dim ** -0.5`."""

    expression: Expression
    power: float
    listener: Listener | None

    def __new__(cls, value: float, expression: Expression, power: float, listener: Listener | None) -> Self:
        """Make a number that is proportional to `expression ** power`."""
        self = super().__new__(cls, value)
        self.expression, self.power, self.listener = expression, power, listener
        return self

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float.__float__(self),)

    def __float__(self) -> float:
        return self.untraced()

    def untraced(self) -> float:
        """Return the number itself, and tell that it was used as one."""
        if self.listener is not None:
            self.listener.as_number(self)
        return float.__float__(self)

    def _proportional(self, value: float, power: float) -> TracedFloat:
        return TracedFloat(value, self.expression, power, self.listener)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc is np.sqrt and len(inputs) == 1:
            return self**0.5
        return getattr(ufunc, method)(*map(_plain, inputs), **kwargs)

    def __mul__(self, other: Any) -> Any:
        if type(other) in (int, float):
            return self._proportional(float.__float__(self) * other, self.power)
        return NotImplemented if isinstance(other, torch.Tensor) else self.untraced() * other

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if type(other) in (int, float):
            return self._proportional(float.__float__(self) / other, self.power)
        return NotImplemented if isinstance(other, torch.Tensor) else self.untraced() / other

    def __rtruediv__(self, other: Any) -> Any:
        if type(other) in (int, float):
            return self._proportional(other / float.__float__(self), -self.power)
        return NotImplemented if isinstance(other, torch.Tensor) else other / self.untraced()

    def __pow__(self, other: Any, modulus: None = None) -> Any:
        if type(other) in (int, float):
            return self._proportional(float.__float__(self) ** other, self.power * other)
        return self.untraced() ** other

    def __add__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, torch.Tensor) else self.untraced() + other

    def __sub__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, torch.Tensor) else self.untraced() - other


class TracedInt(int):
    """An int that remembers its expression; behaves as an int everywhere else."""

    expression: Expression
    listener: Listener | None

    def __new__(cls, value: int, expression: Expression, listener: Listener | None = None) -> Self:
        """Make an integer that came about by `expression`."""
        self = super().__new__(cls, value)
        self.expression = expression
        self.listener = listener
        return self

    def __eq__(self, other: object) -> bool:
        same = int.__eq__(self, other)
        if same is True and self.listener is not None and isinstance(other, int):
            self.listener.compared(self, other)
        elif same is False:
            self._decided("==", other, False)
        return same

    def __ne__(self, other: object) -> bool:
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    __hash__ = int.__hash__

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)

    def _decided(self, name: str, other: Any, result: Any) -> Any:
        if self.listener is not None and isinstance(other, int) and result is not NotImplemented:
            self.listener.decided(self, name, other, result)
        return result

    def __lt__(self, other: Any) -> Any:
        return self._decided("<", other, int.__lt__(self, other))

    def __le__(self, other: Any) -> Any:
        return self._decided("<=", other, int.__le__(self, other))

    def __gt__(self, other: Any) -> Any:
        return self._decided(">", other, int.__gt__(self, other))

    def __ge__(self, other: Any) -> Any:
        return self._decided(">=", other, int.__ge__(self, other))

    def __mod__(self, other: Any) -> Any:
        return self._decided("%", other, int.__mod__(self, other))

    def __and__(self, other: Any) -> Any:
        return self._decided("&", other, int.__and__(self, other))

    def __bool__(self) -> bool:
        result = int.__bool__(self)
        self._decided("==", 0, not result)
        return result

    def __str__(self) -> str:
        return str(self.untraced())

    def __format__(self, spec: str) -> str:
        return format(self.untraced(), spec)

    def untraced(self) -> int:
        """Return the number itself, and tell that it was used as one."""
        if self.listener is not None:
            self.listener.as_number(self)
        return int.__int__(self)

    def __float__(self) -> float:
        return float(self.untraced())

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Compute with numpy: a power stays traced, as it often is the scale of attention."""
        if ufunc is np.sqrt and len(inputs) == 1:
            return self.proportional() ** 0.5
        if ufunc is np.power and inputs[0] is self and not isinstance(inputs[1], TracedInt):
            return self.proportional() ** float(inputs[1])
        return getattr(ufunc, method)(*map(_plain, inputs), **kwargs)

    def proportional(self) -> TracedFloat:
        """Return the same number as a float that remembers where it came from."""
        return TracedFloat(int.__float__(self), self.expression, 1.0, self.listener)

    def __truediv__(self, other: Any) -> Any:
        return self.proportional() / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.proportional()

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        if type(other) is float:
            return self.proportional() ** other
        return pow(self.untraced(), other, modulus)

    def __rpow__(self, other: Any, modulus: Any = None) -> Any:
        return pow(other, self.untraced(), modulus)

    def _combined(self, name: str, other: object, swapped: bool) -> Any:
        if isinstance(other, float):
            self.untraced()
        if not isinstance(other, int) or (name == "//" and (self if swapped else other) == 0):
            return NotImplemented
        left, right = (other, self) if swapped else (self, other)
        value = OPERATIONS[name](int(left), int(right))
        return TracedInt(value, Operation(name, expression_of(left), expression_of(right)), self.listener)

    def __add__(self, other: int) -> int:
        return self._combined("+", other, False)

    def __radd__(self, other: int) -> int:
        return self._combined("+", other, True)

    def __sub__(self, other: int) -> int:
        return self._combined("-", other, False)

    def __rsub__(self, other: int) -> int:
        return self._combined("-", other, True)

    def __mul__(self, other: int) -> int:
        return self._combined("*", other, False)

    def __rmul__(self, other: int) -> int:
        return self._combined("*", other, True)

    def __floordiv__(self, other: int) -> int:
        return self._combined("//", other, False)

    def __rfloordiv__(self, other: int) -> int:
        return self._combined("//", other, True)

    def __divmod__(self, other: int) -> tuple[int, int]:
        return self // other, self % other

    def __lshift__(self, other: int) -> int:
        return self * 2**other

    def __rshift__(self, other: int) -> int:
        return self // 2**other

    def __neg__(self) -> int:
        return self._combined("-", 0, True)

    def __pos__(self) -> int:
        return self


def _plain(value: Any) -> Any:
    """Return a number for a calculation that is not followed, and note that it was used as one."""
    return value.untraced() if isinstance(value, (TracedInt, TracedFloat)) else value


def expression_of(value: int) -> Expression:
    """Return how an integer was computed; a plain int stands for itself."""
    return value.expression if isinstance(value, TracedInt) else int(value)


def attributes_in(expression: Expression) -> tuple[Attribute, ...]:
    """Return the attributes that an expression reads."""
    if isinstance(expression, Attribute):
        return (expression,)
    if isinstance(expression, Operation):
        return attributes_in(expression.left) + attributes_in(expression.right)
    return ()


def extents_in(expression: Expression) -> tuple[Extent, ...]:
    """Return the sizes of labelled tensors that an expression reads."""
    if isinstance(expression, Extent):
        return (expression,)
    if isinstance(expression, Operation):
        return extents_in(expression.left) + extents_in(expression.right)
    return ()


def is_literal(expression: Expression) -> bool:
    """Tell whether nothing that pruning changes went into the expression."""
    return not attributes_in(expression) and not extents_in(expression)


def evaluate(expression: Expression, attribute: Callable[[Attribute], int], extent: Callable[[Extent], int]) -> int:
    """Compute an expression from the values of its attributes and extents."""
    if isinstance(expression, Attribute):
        return attribute(expression)
    if isinstance(expression, Extent):
        return extent(expression)
    if isinstance(expression, Operation):
        left, right = (evaluate(side, attribute, extent) for side in (expression.left, expression.right))
        return OPERATIONS[expression.name](left, right) if expression.name != "//" or right else 0
    return expression


def solved(
    expression: Expression,
    target: int,
    unknown: Attribute,
    attribute: Callable[[Attribute], int],
    extent: Callable[[Extent], int],
) -> int | None:
    """Return the value of `unknown` that makes the expression equal `target`; None if there is none."""
    if expression == unknown:
        return target
    if not isinstance(expression, Operation):
        return None
    in_left = unknown in attributes_in(expression.left)
    if in_left and unknown in attributes_in(expression.right):
        return None
    inside, outside = (expression.left, expression.right) if in_left else (expression.right, expression.left)
    other = evaluate(outside, attribute, extent)
    wanted = _inverted(expression.name, target, other, in_left)
    return None if wanted is None else solved(inside, wanted, unknown, attribute, extent)


def _inverted(name: str, target: int, other: int, unknown_left: bool) -> int | None:
    """Solve `unknown OP other == target` (or `other OP unknown == target`) for the unknown."""
    if name == "+":
        return target - other
    if name == "-":
        return target + other if unknown_left else other - target
    if name == "*":
        return target // other if other and target % other == 0 else None
    if unknown_left:
        return target * other
    return other // target if target and other % target == 0 else None


def with_origin(value: Any, module: str, key: str, listener: Listener) -> Any:
    """Return an attribute's value with its integers traced, also those in lists and tuples; else the same object."""
    if type(value) is int:
        return TracedInt(value, Attribute(module, key), listener)
    if type(value) in (list, tuple) and any(type(item) is int for item in value):
        items = [
            TracedInt(item, Attribute(module, key, i), listener) if type(item) is int else item
            for i, item in enumerate(value)
        ]
        return items if type(value) is list else tuple(items)
    return value


def rewritten(value: Any, index: int | None, new: int) -> Any:
    """Return an attribute's value with one integer replaced."""
    if index is None:
        return new
    items = list(value)
    items[index] = new
    return items if isinstance(value, list) else type(value)(items)
