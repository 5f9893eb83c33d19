"""Shows the arguments of Equinox modules in the reference.

An `equinox.Module` is a dataclass without the decorator, which reading the source alone does not tell. Here
every class of ours whose bases lead to `equinox.Module` gets the `__init__` that its fields make, own and
inherited.
"""

from typing import Any

import griffe


class EquinoxModules(griffe.Extension):
    """A griffe extension; mkdocs.yml names this file."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Give each module class of a package that was just read its `__init__`."""
        classes = [class_ for class_ in _classes(pkg) if "__init__" not in class_.all_members]
        for class_ in classes:
            if _is_module(class_):
                class_.set_member("__init__", _init(class_))


def _classes(module: griffe.Module) -> list[griffe.Class]:
    found = []
    for member in module.members.values():
        if member.is_alias:
            continue
        if isinstance(member, griffe.Module):
            found += _classes(member)
        elif isinstance(member, griffe.Class):
            found.append(member)
    return found


def _lineage(class_: griffe.Class) -> list[griffe.Class]:
    """The class and those of ours that it inherits from, furthest first."""
    try:
        return [*reversed(class_.mro()), class_]
    except (ValueError, griffe.AliasResolutionError):
        return [class_]


def _is_module(class_: griffe.Class) -> bool:
    bases = [str(base) for parent in _lineage(class_) for base in parent.bases]
    return any(base in ("eqx.Module", "equinox.Module", "Module") for base in bases)


def _init(class_: griffe.Class) -> griffe.Function:
    fields: dict[str, griffe.Parameter] = {}
    for parent in _lineage(class_):
        for name, member in parent.members.items():
            # A class variable is no field; griffe says so by a label.
            held = isinstance(member, griffe.Attribute) and "instance-attribute" in member.labels
            if held and not str(member.annotation).startswith("eqx.Abstract"):
                fields[name] = _parameter(name, member)
    kind = griffe.ParameterKind
    ordered = [p for p in fields.values() if p.kind is not kind.keyword_only]
    ordered += [p for p in fields.values() if p.kind is kind.keyword_only]
    itself = griffe.Parameter("self", kind=kind.positional_or_keyword)
    return griffe.Function(
        "__init__",
        parameters=griffe.Parameters(itself, *ordered),
        parent=class_,
        lineno=class_.lineno,
    )


def _parameter(name: str, field: griffe.Attribute) -> griffe.Parameter:
    """A field as an argument, its default taken from `number(…)`, `real(…)` or `eqx.field(…)`."""
    default, kind = field.value, griffe.ParameterKind.positional_or_keyword
    if isinstance(default, griffe.ExprCall) and str(default.function).split(".")[-1] in _DECLARING:
        named = {a.name: a.value for a in default.arguments if isinstance(a, griffe.ExprKeyword)}
        placed = [a for a in default.arguments if not isinstance(a, griffe.ExprKeyword)]
        if str(named.get("kw_only")) == "True":
            kind = griffe.ParameterKind.keyword_only
        made = named.get("default_factory")
        default = placed[0] if placed else named.get("default", made and f"{made}()")
    return griffe.Parameter(name, annotation=field.annotation, kind=kind, default=default)


_DECLARING = {"field", "number", "real"}
