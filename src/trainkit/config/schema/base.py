"""Shared by all sections of the schema: strict types, closed choices, names and durations."""

import fractions
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"

DATE_PATTERN = r"%[A-Za-z]"
"""A format of dates, as ``strftime`` has it."""


def safe_name(text: str) -> str:
    """The text as the name of a run: characters that a name cannot have become ``_``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-_")[:64] or "config"


class Section(BaseModel):
    """A mapping of the config: unknown keys are errors, and values are never coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


def is_own(section: Section) -> bool:
    """Whether it is a part of a plug-in: its type is such as ``acme.SqueezeExcite``."""
    return "." in str(getattr(section, "type", ""))


def _expand_short_form(value: Any) -> Any:
    """``relu`` is short for ``{type: relu}``."""
    return {"type": value} if isinstance(value, str) else value


ShortForm = BeforeValidator(_expand_short_form)
"""Marks a closed choice in which a bare NAME stands for ``{type: NAME}``."""


def short_by_key(name: str) -> BeforeValidator:
    """Marks a closed choice in which ``{NAME: ...}`` stands for ``{type: NAME, NAME: ...}``."""

    def expand(value: Any) -> Any:
        return {"type": name, **value} if isinstance(value, dict) and "type" not in value and name in value else value

    return BeforeValidator(expand)


def variants_of(choice: Any) -> dict[str, type[Section]]:
    """The variants of a closed choice (``Annotated[A | B, ...]``) by the name of their ``type``."""
    members = get_args(get_args(choice)[0])
    return {get_args(member.model_fields["type"].annotation)[0]: member for member in members}


@dataclass(frozen=True)
class Duration:
    """A length of training: ``epochs``, optimizer ``steps`` or wall-clock ``minutes``."""

    value: int
    unit: Literal["epochs", "steps", "minutes"]

    def __str__(self) -> str:
        return f"{self.value} {self.unit}"


_UNITS: dict[str, Literal["epochs", "steps", "minutes"]] = {"ep": "epochs", "st": "steps", "min": "minutes"}
_DURATION = re.compile(r"^(\d+)(ep|st|min)$")


def parse_duration(value: int | str) -> Duration:
    """``3`` and ``3ep`` are epochs, ``500st`` optimizer steps, ``10min`` minutes of wall-clock time."""
    if isinstance(value, int):
        return Duration(value, "epochs")
    match = _DURATION.match(value)
    if match is None:
        raise ValueError(value)
    return Duration(int(match[1]), _UNITS[match[2]])


def check_duration(value: int | str) -> int | str:
    """Accepts a number of epochs or optimizer steps. Raises ValueError."""
    return _check(value, ("epochs", "steps"))


def check_epochs(value: int | str) -> int | str:
    """Accepts a number of epochs. Raises ValueError."""
    return _check(value, ("epochs",))


def check_interval(value: int | str) -> int | str:
    """Accepts any duration. Raises ValueError."""
    return _check(value, ("epochs", "steps", "minutes"))


def _check(value: int | str, units: Sequence[str]) -> int | str:
    duration = parse_duration(value)
    if duration.value < 1 or duration.unit not in units:
        raise ValueError(value)
    return value


_SHARE = re.compile(r"^(\d{1,2}(?:\.\d+)?)%$")


def parse_start(value: int | str) -> Duration | fractions.Fraction:
    """A position in the run: ``75%`` of its steps, or after a duration."""
    match = _SHARE.match(value) if isinstance(value, str) else None
    return parse_duration(value) if match is None else fractions.Fraction(match[1]) / 100


def check_start(value: int | str) -> int | str:
    """Accepts a share of the run, or a number of epochs or optimizer steps. Raises ValueError."""
    return value if isinstance(parse_start(value), fractions.Fraction) else check_duration(value)


def _duration_schema(units: str, *examples: str) -> WithJsonSchema:
    text = {"type": "string", "pattern": f"^0*[1-9][0-9]*({units})$", "examples": list(examples)}
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, text]})


Steps = Annotated[int | str, AfterValidator(check_duration), _duration_schema("ep|st", "10ep", "500st")]
"""A duration that can be counted in optimizer steps."""
Epochs = Annotated[int | str, AfterValidator(check_epochs), _duration_schema("ep", "2ep")]
"""A number of epochs."""
Interval = Annotated[int | str, AfterValidator(check_interval), _duration_schema("ep|st|min", "1ep", "10min")]
"""A duration that may also be given in minutes."""

Start = Annotated[int | str, AfterValidator(check_start), _duration_schema("ep|st|%", "75%", "60ep")]
"""A position in the run: a share of its steps, or after a duration that can be counted in optimizer steps."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Size = Annotated[list[Count], Field(min_length=2, max_length=2)] | Count
"""A height and width: ``[H, W]``, or one number for both."""
Range = Annotated[list[float], Field(min_length=2, max_length=2)]
"""A lower and an upper bound."""
