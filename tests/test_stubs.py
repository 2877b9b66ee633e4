"""_core.pyi against the binary, both ways: names, parameters, their kinds and defaults."""

import ast
import inspect
from pathlib import Path

import pytest

import gpgan
from gpgan import _core

STUB = ast.parse((Path(gpgan.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))
#: What pybind11 3 adds to every class and module.
ADDED = {"_pybind11_conduit_v1_"}


def public(names) -> set[str]:
    return {name for name in names if not name.startswith("_") or name == "__init__"} - ADDED


def parameters(function: ast.FunctionDef) -> list[tuple[str, str, str | None]]:
    """(name, kind, default) of each but self."""
    a = function.args
    assert not (a.vararg or a.kwarg or a.posonlyargs)
    defaults = [None] * (len(a.args) - len(a.defaults)) + a.defaults
    found = [(x.arg, "any", d) for x, d in zip(a.args, defaults, strict=True) if x.arg != "self"]
    found += [(x.arg, "keyword", d) for x, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    return [(name, kind, None if d is None else ast.unparse(d)) for name, kind, d in found]


def of_binary(function) -> list[tuple[str, str, str | None]]:
    """The same from the signature that pybind11 writes into the docstring."""
    assert function.__doc__, f"{function} has no docstring"
    signature = function.__doc__.splitlines()[0]
    assert "Overloaded" not in function.__doc__
    tree = ast.parse(f"def {signature}: ...").body[0]
    assert isinstance(tree, ast.FunctionDef)
    return parameters(tree)


FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def test_stubs_name_what_the_binary_has():
    assert public(vars(_core)) == set(FUNCTIONS) | set(CLASSES)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_stubs_have_the_signature_of_the_function(name):
    assert parameters(FUNCTIONS[name]) == of_binary(getattr(_core, name))


@pytest.mark.parametrize("name", CLASSES)
def test_stubs_have_the_members_of_the_class(name):
    members = {node.name: node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)}
    binary = getattr(_core, name)
    assert set(members) == public(vars(binary))
    for member, node in members.items():
        attribute = inspect.getattr_static(binary, member)
        is_property = any(ast.unparse(d) == "property" for d in node.decorator_list)
        assert isinstance(attribute, property) == is_property
        if not is_property:
            assert parameters(node) == of_binary(getattr(binary, member))


def test_stubs_leave_no_public_python_name_out():
    # `from gpgan import *` and dir() say the same, and every name is there.
    assert dir(gpgan) == sorted(gpgan.__all__)
    for name in gpgan.__all__:
        assert getattr(gpgan, name) is not None
    for module in (gpgan.ops, gpgan.reference):
        for name in module.__all__:
            assert getattr(module, name).__doc__
    assert set(gpgan.ops.__all__) <= set(gpgan.reference.__all__)


@pytest.mark.parametrize("name", gpgan.ops.__all__)
def test_ops_have_the_arguments_of_their_reference(name):
    def names(function):
        return [p for p in inspect.signature(function).parameters if p != "impl"]

    assert names(getattr(gpgan.ops, name)) == names(getattr(gpgan.reference, name))
