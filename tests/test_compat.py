"""Private names of other libraries are touched in compat.py alone."""

import ast
from pathlib import Path

import pytest

import sparsedet

PACKAGE = Path(sparsedet.__file__).parent
# nn.Module's own tables of children, hooks' handles, and what subclasses of detectron2's classes
# override or inherit, which compat.py lists.
KNOWN = {"_modules", "_fields", "_replace", "_trainer", "_name_", "_asdict"}


def private(name):
    return name.startswith("_") and not name.endswith("__")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_no_private_name_of_another_library(path):
    if path.name == "compat.py":
        return
    tree = ast.parse(path.read_text())
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    own |= {
        t.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute)
        for t in [n]
        if isinstance(n.value, ast.Name) and n.value.id in ("self", "cls")
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            parts = [*(node.module or "").split("."), *(a.name for a in node.names)]
            found += [name for name in parts if private(name)]
        elif isinstance(node, ast.Attribute) and private(node.attr):
            mine = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not mine and node.attr not in own | KNOWN:
                found.append(node.attr)
    assert "__future__" not in found
    assert not found, f"{path.name}: {found}"
