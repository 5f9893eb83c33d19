"""Errors as one line for a person."""


def explained(error: Exception) -> str:
    """The message of an error. Of a configuration that was refused: each field, what was given and why."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    lines = []
    for one in errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in one["loc"])
        message = one["msg"].removeprefix("Value error, ")
        given = f"; got {one['input']!r}" if place else ""
        lines.append(f"{place}: {message}{given}" if place else message)
    return "; ".join(lines)
