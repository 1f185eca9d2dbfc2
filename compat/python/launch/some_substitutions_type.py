"""What a launch file may pass where a text is wanted."""

from collections.abc import Iterable
from typing import TypeAlias

from launch.substitution import Substitution

SomeSubstitutionsType: TypeAlias = str | Substitution | Iterable[str | Substitution]
SomeSubstitutionsType_types_tuple = (str, Substitution, Iterable)
