"""_cuda.pyi against the binary, as test_stubs.py holds _core.pyi."""

import ast
from pathlib import Path

from test_stubs import of_binary, parameters, public

import gpgan

STUB = ast.parse((Path(gpgan.__file__).parent / "_cuda.pyi").read_text(encoding="utf-8"))
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def test_stubs_name_what_the_binary_has(cuda_module):
    assert public(vars(cuda_module)) == set(FUNCTIONS) | set(CLASSES)


def test_stubs_have_the_signatures_of_the_binary(cuda_module):
    for name, node in FUNCTIONS.items():
        assert parameters(node) == of_binary(getattr(cuda_module, name))
    for name, node in CLASSES.items():
        members = {member.name: member for member in node.body if isinstance(member, ast.FunctionDef)}
        binary = getattr(cuda_module, name)
        assert set(members) == public(vars(binary))
        for member, function in members.items():
            assert parameters(function) == of_binary(getattr(binary, member))
