"""Shows in the reference what reading the source alone does not tell.

- The arguments of Equinox modules. An `equinox.Module` is a dataclass without the decorator; here every
  module class of ours gets the `__init__` that Equinox made of its fields, own and inherited.
- Constants that are assigned two at a time, `A, B = 1, 2`.
"""

import ast
import importlib
import inspect
from typing import Any

import equinox as eqx
import griffe


class ModulesAndConstants(griffe.Extension):
    """A griffe extension; mkdocs.yml names this file."""

    def on_module_members(
        self, *, node: ast.AST | griffe.ObjectNode, mod: griffe.Module, **_: Any
    ) -> None:
        """Add the constants of a module that are assigned several at a time."""
        for statement in getattr(node, "body", ()):
            match statement:
                case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                    for name, value in zip(names, values, strict=True):
                        constant = griffe.Attribute(
                            ast.unparse(name), value=ast.unparse(value), lineno=statement.lineno
                        )
                        mod.set_member(constant.name, constant)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Give each module class of a package that was just read its `__init__`."""
        for class_ in [c for c in _classes(pkg) if "__init__" not in c.all_members]:
            made = getattr(importlib.import_module(class_.module.path), class_.name)
            if issubclass(made, eqx.Module):
                class_.set_member("__init__", _init(class_, made))


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


def _init(class_: griffe.Class, made: type[eqx.Module]) -> griffe.Function:
    parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
    for argument in inspect.signature(made).parameters.values():
        field = class_.all_members.get(argument.name)
        default = argument.default
        parameters.append(
            griffe.Parameter(
                argument.name,
                annotation=field.annotation if isinstance(field, griffe.Attribute) else None,
                kind=griffe.ParameterKind(argument.kind.description),
                default=None
                if default is argument.empty
                else getattr(default, "__name__", repr(default)),
            )
        )
    return griffe.Function(
        "__init__",
        parameters=griffe.Parameters(*parameters),
        parent=class_,
        lineno=class_.lineno,
    )
