"""Writes the table of errors in docs/troubleshooting.md from the code: python docs/make_error_table.py

`...` in a message stands for what differs from case to case.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from sam2edge import errors

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).parent / "troubleshooting.md"
MARK = "<!-- Everything below is written by python docs/make_error_table.py -->\n"
_CLASSES = {name: kind for name, kind in vars(errors).items() if name.endswith("Error")}
_PARTS = ("problem", "expected", "got", "remedy")

Texts = dict[str, str]
"""What names stand for, as far as it is written down."""


def make_page() -> str:
    """The whole page: what is written by hand, then a table for each class of errors."""
    found: dict[str, set[tuple[str, str]]] = {name: set() for name in _CLASSES}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "sam2edge").rglob("*.py"))]
    constants = {name: text for tree in trees for name, text in _read_constants(tree)}
    for tree in trees:
        for name, parts in _find_errors(tree, constants):
            problem, fix = parts["problem"], parts.get("remedy", "")
            if re.search("[a-z]{3}", problem.replace("...", "")):
                expected = parts.get("expected", "")
                if fix in ("", "..."):
                    fix = f"expected: {expected}" if re.search("[a-z]{3}", expected) else "as the message says"
                found[name].add((problem, fix))
    lines = [PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK]
    for name, rows in found.items():
        if rows:
            lines += [f"### {name}\n", str(_CLASSES[name].__doc__).partition("\n")[0] + "\n"]
            lines += ["| message | what to do |", "|---|---|"]
            lines += [f"| {_escape(problem)} | {_escape(fix)} |" for problem, fix in sorted(rows)] + [""]
    return "\n".join(lines)


def _read_constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        is_text = isinstance(node, ast.Assign) and isinstance(node.value, (ast.Constant, ast.JoinedStr))
        if is_text and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, _read_text(node.value, {})


def _find_errors(tree: ast.Module, constants: Texts) -> Iterator[tuple[str, Texts]]:
    """(class, its parts) of each error that a module makes. A function that makes one of its parameters is read once
    for each call of it."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    makers = {node.name: node for node in functions if getattr(node.returns, "id", "") in _CLASSES}
    inside = {id(call) for maker in makers.values() for call in ast.walk(maker)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in inside):
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        if name in makers:
            maker = makers[name]
            names = [argument.arg for argument in maker.args.args if argument.arg != "self"]
            defaults = dict(zip(reversed(names), reversed(maker.args.defaults), strict=False))
            texts = constants | {key: _read_text(value, constants) for key, value in defaults.items()}
            texts |= _read_arguments(call, names, constants)
            for made in (node for node in ast.walk(maker) if isinstance(node, ast.Call)):
                if getattr(made.func, "id", "") in _CLASSES:
                    yield made.func.id, _read_arguments(made, _PARTS, texts)  # type: ignore[attr-defined]
        elif name in _CLASSES and call.args:
            yield name, _read_arguments(call, _PARTS, constants)


def _read_arguments(call: ast.Call, names: list[str] | tuple[str, ...], texts: Texts) -> Texts:
    given = dict(zip(names, call.args, strict=False)) | {k.arg: k.value for k in call.keywords if k.arg}
    return {name: _read_text(value, texts) for name, value in given.items()}


def _read_text(node: ast.expr, texts: Texts) -> str:
    if isinstance(node, ast.Constant):
        return "" if node.value is None else str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_read_text(v.value if isinstance(v, ast.FormattedValue) else v, texts) for v in node.values)
    if isinstance(node, ast.IfExp):
        parts = (_read_text(node.body, texts), _read_text(node.orelse, texts))
        return " / ".join(part for part in parts if part)
    return texts.get(node.id, "...") if isinstance(node, ast.Name) else "..."


def _escape(text: str) -> str:
    return re.sub(r"(\.\.\.[^\w ]*)+\.\.\.", "...", text).replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
