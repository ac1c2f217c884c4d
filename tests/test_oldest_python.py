"""What the oldest Python that is supported refuses, and neither a newer one nor mypy finds."""

import ast
from pathlib import Path

import gittrack


def test_a_named_tuple_has_no_other_base() -> None:
    """Python 3.10 raises TypeError for ``class Pair(NamedTuple, Generic[T])``, when the module is imported."""
    found = []
    for module in sorted(Path(gittrack.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 10))):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if len(bases) > 1 and "NamedTuple" in bases:
                found.append(f"{module}: {bases}")
    assert not found
