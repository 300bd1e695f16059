"""A dataclass of settings, each described once where it stands: its section, help, values and where it means something."""

from collections.abc import Mapping
from dataclasses import asdict, field, fields, replace
from typing import Any, Self

from ser_backend.errors import SerError


def setting(
    section: str,
    default: Any,
    help: str,
    *,
    among: tuple[str, ...] = (),
    low: float = 0,
    high: float = 0,
    fits: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
) -> Any:
    """fits, methods: values of `fit` and `method` for which the setting means something; () = all."""
    found = {"section": section, "help": help, "among": among, "low": low, "high": high}
    found |= {"fits": fits, "methods": methods}
    return field(default=default, metadata=found)


class Settings:
    """Base of a frozen dataclass whose fields are all made by `setting`."""

    __slots__ = ()

    def validate(self) -> Self:
        """Return self, or raise SerError naming the setting, what was found and what is accepted."""
        for name, entry in described(type(self)).items():
            value = getattr(self, name)
            if entry["among"] and value not in entry["among"]:
                raise SerError(f"{name} is {value!r}; it must be one of {', '.join(entry['among'])}.")
            if isinstance(value, int | float) and not entry["low"] <= value <= entry["high"]:
                raise SerError(f"{name} is {value}; it must be from {entry['low']:,} to {entry['high']:,}.")
        return self

    def changed(self, settings: Mapping[str, Any]) -> Self:
        """A copy with `settings` (values may be text, as typed). Raises SerError on an unknown name or a wrong kind."""
        known = described(type(self))
        values: dict[str, Any] = {}
        for name, raw in settings.items():
            if name not in known:
                raise SerError(f"There is no setting {name!r}. The settings are: {', '.join(known)}.")
            kind = known[name]["type"]
            try:
                values[name] = raw if isinstance(raw, kind) else kind(str(raw).strip())
            except ValueError:
                wanted = {int: "a whole number", float: "a number", str: "text"}[kind]
                raise SerError(f"{name} is {raw!r}; it must be {wanted}.") from None
            if values[name] != values[name]:
                raise SerError(
                    f"{name} is not a number; it must be from {known[name]['low']:,} to {known[name]['high']:,}."
                )
        return replace(self, **values)  # type: ignore[type-var]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload]


def described(kind: type[Settings]) -> dict[str, dict[str, Any]]:
    """Setting -> {type, default, section, help, among, low, high, fits, methods}, in the order of the docs."""
    return {
        entry.name: {"type": type(entry.default), "default": entry.default, **entry.metadata}
        for entry in fields(kind)  # type: ignore[arg-type]
    }


def number(value: Any) -> str:
    """A setting's value as a person writes it: 0.0001, not 1e-04."""
    return f"{value:.10f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def table(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of the table that the docs hold. entries: of `described`."""
    lines = ["| setting | default | values | for | meaning |", "|---|---|---|---|---|"]
    for name, entry in entries.items():
        if entry["among"]:
            values = ", ".join(f"`{value}`" for value in entry["among"])
        elif entry["type"] is str:
            values = "text"
        else:
            values = f"{number(entry['low'])} to {number(entry['high'])}"
        default = f"`{number(entry['default'])}`" if entry["default"] != "" else ""
        meant = ", ".join(f"`{value}`" for value in entry["fits"] + entry["methods"]) or "all"
        lines.append(f"| `{name}` | {default} | {values} | {meant} | {entry['help']} |")
    return lines
