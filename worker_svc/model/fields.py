"""Fields of a JSON object by type: a wrong one is refused by its file and name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from albireo.checkpoint.files import CheckpointError

LARGEST = 2**53
"""From here on, floats are not exact; no field of a config comes near."""


class Fields:
    """The fields of one object. A field that is null counts as absent, as it does in most checkpoints."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        """``where``: the file, and the object in it, for messages."""
        self._values = values
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def given(self, name: str) -> bool:
        """Whether the field is there, be it null."""
        return name in self._values

    def wrong(self, name: str, message: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {name}: {message}")

    def raw(self, name: str) -> Any:
        return self._values.get(name)

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number above zero, 4096.0 too. Raises CheckpointError, also if absent without default."""
        number = self.number(name, default)
        if number != int(number):
            raise self.wrong(name, f"{number!r} is not a whole number")
        return int(number)

    def number(self, name: str, default: float | None = None) -> float:
        """A number above zero and below LARGEST. Raises likewise."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, f"{_shown(value)} is not a number")
        if not 0 < value < LARGEST:  # not for NaN, which is neither
            raise self.wrong(name, f"{_shown(value)}; must be above 0, and a number that a model can have")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, f"{_shown(value)} is neither true nor false")
        return value

    def text(self, name: str, default: str) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, f"{_shown(value)} is not a string")
        return value

    def items(self, name: str) -> list[Any]:
        """Empty where absent."""
        value = self._get(name, [])
        if not isinstance(value, list):
            raise self.wrong(name, f"{_shown(value)} is not a list")
        return value

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        """``length`` such numbers. Raises CheckpointError."""
        value = self._get(name, None)
        if not isinstance(value, list) or len(value) != length:
            raise self.wrong(name, f"{_shown(value)} is not a list of {length} numbers")
        each = Fields({str(index): number for index, number in enumerate(value)}, f"{self.where}: {name}")
        return tuple(each.number(str(index)) for index in range(length))

    def fields(self, name: str) -> Fields | None:
        """An object; None where absent or empty."""
        value = self._get(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, f"{_shown(value)} is not an object")
        return Fields(value, f"{self.where}: {name}") if value else None

    def _get(self, name: str, default: Any) -> Any:
        value = self._values.get(name)
        if value is None:
            value = default
        if value is None:
            raise self.wrong(name, "missing")
        return value


def _shown(value: object) -> str:
    """What stands in the file, cut to a length that fits into a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
