"""House rules that no linter knows, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("daemon", "hw", "kernels")
MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 500
REASON_FILES = {"hw/errors.py", "hw/drivers.py", "daemon/errors.py"}
"""Where reasons are defined, so that `docs/errors.md` and the API know them all."""
EXTERNAL_WITHOUT_HOOKS = {
    "ABC",
    "Protocol",
    "BaseModel",
    "Enum",
    "StrEnum",
    "IntEnum",
    "IntFlag",
    "Exception",
    "Generic",
}
"""Base classes of libraries none of whose public methods are overridden."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def sources(*tops: str) -> dict[str, str]:
    """Path from the root -> text."""
    files = (path for top in tops for path in sorted((ROOT / top).rglob("*.py")))
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}


@cache
def trees(*tops: str) -> dict[str, ast.Module]:
    return {name: ast.parse(text) for name, text in sources(*tops).items()}


def nodes(*tops: str) -> Iterator[tuple[str, ast.AST]]:
    for name, tree in trees(*tops).items():
        for node in ast.walk(tree):
            yield name, node


def functions(*tops: str) -> Iterator[tuple[str, Function]]:
    for name, node in nodes(*tops):
        if isinstance(node, Function):
            yield name, node


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a name or attribute, the callee of a call; empty for anything else."""
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(node: ast.AST) -> list[str]:
    """Modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def kernels_with_flags_of_their_own() -> Iterator[str]:
    """Every kernel is decorated ``@njit(**JIT)``; no other compiler entry is used."""
    for name, function in functions(*PRODUCT):
        for decorator in function.decorator_list:
            last = dotted(decorator).rpartition(".")[2]
            if last in ("jit", "vectorize", "guvectorize", "stencil", "cfunc"):
                yield f"{name}:{function.lineno}: {function.name} uses @{last}"
            if last == "njit" and ast.unparse(decorator) != "njit(**JIT)":
                yield f"{name}:{function.lineno}: {function.name} is not decorated njit(**JIT)"


def kernels_outside_their_package() -> Iterator[str]:
    """numba is imported by kernels and by the simulated instrument only."""
    for name, node in nodes(*PRODUCT):
        if any(module.split(".")[0] == "numba" for module in imported(node)) and not name.startswith(
            ("kernels/", "hw/")
        ):
            yield f"{name}: imports numba"


def imports_of_ours_in_kernels() -> Iterator[str]:
    """Kernels import nothing of ours but kernels."""
    for name, node in nodes("kernels"):
        for module in imported(node):
            if module.split(".")[0] in ("daemon", "hw", "tests"):
                yield f"{name}: imports {module}"


def wall_clocks() -> Iterator[str]:
    """Intervals are measured on the monotonic clock; labels are made with ``datetime.now(UTC)``."""
    for name, node in nodes(*PRODUCT):
        if isinstance(node, ast.Attribute) and dotted(node) in ("time.time", "time.time_ns"):
            yield f"{name}:{node.lineno}: {dotted(node)}"
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and {a.name for a in node.names} & {"time", "time_ns"}
        ):
            yield f"{name}:{node.lineno}: imports the wall clock"


def long_functions() -> Iterator[str]:
    for name, function in functions(*PRODUCT):
        lines = (function.end_lineno or 0) - function.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            yield f"{name}:{function.lineno}: {function.name} has {lines} lines"


def long_files() -> Iterator[str]:
    for name, text in sources(*PRODUCT).items():
        lines = text.count("\n")
        if lines > MAX_FILE_LINES:
            yield f"{name} has {lines} lines"


def swallowed_exceptions() -> Iterator[str]:
    """No handler does nothing; one for everything raises, logs or hands the error on."""
    for name, node in nodes(*PRODUCT):
        if not isinstance(node, ast.ExceptHandler):
            continue
        where = f"{name}:{node.lineno}"
        if node.type is None:
            yield f"{where}: bare except"
        elif all(isinstance(line, ast.Pass) or _is_ellipsis(line) for line in node.body):
            yield f"{where}: swallows {ast.unparse(node.type)}"
        elif dotted(node.type) in ("Exception", "BaseException") and not _acts(node):
            yield f"{where}: catches everything and says nothing"


def _is_ellipsis(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def _acts(handler: ast.ExceptHandler) -> bool:
    """Whether the handler raises, calls something, or uses the error."""
    inside = [node for line in handler.body for node in ast.walk(line)]
    uses_error = any(isinstance(node, ast.Name) and node.id == handler.name for node in inside)
    return uses_error or any(isinstance(node, ast.Raise | ast.Call) for node in inside)


def missing_docstrings() -> Iterator[str]:
    """Modules, public classes, functions and methods say what a caller must know; overriding methods need not again."""
    classes = {node.name: node for _, node in nodes(*PRODUCT) if isinstance(node, ast.ClassDef)}
    for name, tree in trees(*PRODUCT).items():
        if not ast.get_docstring(tree) and sources(*PRODUCT)[name].strip():
            yield f"{name}: the module"
        for node in tree.body:
            if isinstance(node, Function | ast.ClassDef) and is_public(node.name) and not ast.get_docstring(node):
                yield f"{name}:{node.lineno}: {node.name}"
            if isinstance(node, ast.ClassDef) and is_public(node.name):
                yield from (f"{name}:{m.lineno}: {node.name}.{m.name}" for m in _undocumented(node, classes))


def is_public(name: str) -> bool:
    return not name.startswith("_")


def _undocumented(owner: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[Function]:
    for method in owner.body:
        if not isinstance(method, Function) or not is_public(method.name) or ast.get_docstring(method):
            continue
        is_setter = any(dotted(decorator).endswith(".setter") for decorator in method.decorator_list)
        if not is_setter and not _overrides(method.name, owner, classes):
            yield method


def _overrides(method: str, owner: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    for base in owner.bases:
        name = dotted(base.value if isinstance(base, ast.Subscript) else base).rpartition(".")[2]
        if name not in classes and name not in EXTERNAL_WITHOUT_HOOKS:
            return True  # a library's hook
        if name in classes and (_defines(classes[name], method) or _overrides(method, classes[name], classes)):
            return True
    return False


def _defines(owner: ast.ClassDef, method: str) -> bool:
    return any(isinstance(member, Function) and member.name == method for member in owner.body)


def reasons_elsewhere() -> Iterator[str]:
    for name, node in nodes(*PRODUCT):
        if isinstance(node, ast.ClassDef) and "Reason" in map(dotted, node.bases) and name not in REASON_FILES:
            yield f"{name}:{node.lineno}: {node.name}"


def unfinished_work() -> Iterator[str]:
    for name, text in sources(*PRODUCT).items():
        for match in re.finditer(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError", text):
            yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"


def knowing_tests() -> Iterator[str]:
    """A simulator is a driver; the product does not know that it is tested."""
    for name, node in nodes(*PRODUCT):
        if any(module.split(".")[0] in ("pytest", "tests", "hypothesis", "unittest") for module in imported(node)):
            yield f"{name}: imports test code"
        if isinstance(node, ast.Constant) and node.value == "PYTEST_CURRENT_TEST":
            yield f"{name}:{node.lineno}: asks whether it is tested"


RULES: list[Callable[[], Iterator[str]]] = [
    kernels_with_flags_of_their_own,
    kernels_outside_their_package,
    imports_of_ours_in_kernels,
    wall_clocks,
    long_functions,
    long_files,
    swallowed_exceptions,
    missing_docstrings,
    reasons_elsewhere,
    unfinished_work,
    knowing_tests,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Callable[[], Iterator[str]]) -> None:
    assert list(rule()) == []


BROKEN = '''
import numba
from numba import njit
from time import time as now
import daemon.store
import pytest

@njit(cache=True)
def bad_flags(x):
    """Doc."""

@numba.vectorize
def other_entry(x):
    """Doc."""

def undocumented():
    try:
        now()
    except ValueError:
        pass
    try:
        return time.time()
    except Exception:
        return None
    except:
        raise

class Plain:
    """Doc."""
    def method(self):
        return 1

class LocalReason(Reason):
    """Doc."""
# TODO later
'''


def test_the_rules_find_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    text = BROKEN + "def long():\n" + "    x = 1\n" * 600
    monkeypatch.setitem(globals(), "sources", lambda *tops: {"daemon/bad.py": text})
    monkeypatch.setitem(globals(), "trees", lambda *tops: {"daemon/bad.py": ast.parse(text)})
    found = {rule.__name__: list(rule()) for rule in RULES}
    assert len(found["kernels_with_flags_of_their_own"]) == 2
    assert len(found["kernels_outside_their_package"]) == 2
    assert len(found["imports_of_ours_in_kernels"]) == 1
    assert len(found["wall_clocks"]) == 2
    assert len(found["long_functions"]) == 1
    assert len(found["long_files"]) == 1
    assert len(found["swallowed_exceptions"]) == 3
    assert len(found["missing_docstrings"]) == 4
    assert len(found["reasons_elsewhere"]) == 1
    assert len(found["unfinished_work"]) == 1
    assert len(found["knowing_tests"]) == 1
