"""The house stands as it was drawn.

What a tool can hold is held by the tool: imports by import-linter, style by ruff, types by mypy. Here are the
rules that no tool knows: each module tells its story and names what it offers, no file grows past what one
reads in a sitting, a word that means four things is not used, each folder has a map, nothing in the
tree names an address or a path of somebody's machine, and each package imports only what its install brings.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__: list[str] = []

ROOT = Path(__file__).resolve().parent.parent
SOURCE_FOLDERS = ("crdt", "client_sdk", "server", "loadtests")
FOLDERS_WITH_A_MAP = (*SOURCE_FOLDERS, "tests", "deploy")
LINES_A_FILE_MAX = 450  # about what is read in a sitting; past it a room wants to be two


def python_files(*folders: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


@cache
def project() -> dict[str, Any]:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table: dict[str, Any] = whole["project"]
    return table


def files_in_the_tree() -> list[Path]:
    """List what a clone would hold, and what is about to be added to it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: which files belong to the tree is git's to say")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = [Path(name.decode()) for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if (ROOT / path).is_file()]


# -------------------------------------------------------------------------------------------- a module's face


@pytest.mark.parametrize("path", python_files(*SOURCE_FOLDERS), ids=str)
def test_a_module_begins_with_its_story(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), f"{path} has no docstring: say what it promises and refuses"


def assigned_names(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
        case ast.Assign(targets=targets):
            for target in targets:
                yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            yield name
        case ast.If() | ast.Try() | ast.With():
            for child in ast.walk(node):
                if child is not node and isinstance(child, ast.stmt):
                    yield from assigned_names(child)


def offered_names(path: Path) -> list[str]:
    """Read a module's `__all__`, a literal list of names."""
    for node in tree_of(path).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
            ):
                names = ast.literal_eval(value)
                assert isinstance(names, list | tuple)
                return [str(name) for name in names]
    pytest.fail(f"{path} has no __all__: say what it offers, `__all__: list[str] = []` if nothing")


def in_the_order_of_ruff(name: str) -> tuple[int, list[tuple[int, str]]]:
    """Order constants, then classes, then the rest, numbers by value, as ruff's RUF022 does."""
    group = 0 if len(name) > 1 and name.isupper() else 1 if name[:1].isupper() else 2
    parts = re.findall(r"\d+|\D+", name)
    return group, [(int(part), "") if part.isdigit() else (sys.maxsize, part) for part in parts]


MODULES_THAT_OFFER = [path for path in python_files(*SOURCE_FOLDERS) if path.name != "__main__.py"]


@pytest.mark.parametrize("path", MODULES_THAT_OFFER, ids=str)
def test_a_module_offers_each_of_its_public_names_once_and_in_order(path: Path) -> None:
    offered = offered_names(path)
    assert offered == sorted(offered, key=in_the_order_of_ruff)
    assert len(offered) == len(set(offered))
    body = tree_of(path).body
    at_hand = {name for node in body for name in assigned_names(node)}
    if not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in body):
        assert set(offered) <= at_hand, "__all__ names what the module does not have"
    public = {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    }
    assert public <= set(offered), "a public name is missing in __all__, or wants an underscore"


@pytest.mark.parametrize("path", python_files(*SOURCE_FOLDERS), ids=str)
def test_a_file_is_read_in_a_sitting(path: Path) -> None:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_A_FILE_MAX, f"{path} has {lines} lines: a room of that size wants to be two"


# ------------------------------------------------------------------------------------------------------ words


def test_the_word_that_means_four_things_is_not_used() -> None:
    sources = [path for folder in SOURCE_FOLDERS for path in (ROOT / folder).rglob("*")]
    names_of_others = (
        r"wal_(auto)?checkpoint|log_checkpoints|checkpoint_(timeout|completion_target)"  # settings
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources
        if path.suffix in {".py", ".sql"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if "checkpoint" in re.sub(names_of_others, "", line.lower())
    ]
    assert not found, "say snapshot, cursor or position"


@pytest.mark.parametrize("path", python_files(*SOURCE_FOLDERS, "tests"), ids=str)
def test_a_name_says_what_a_thing_does(path: Path) -> None:
    empty = re.compile(r"manager|utils?$|helpers?$", re.IGNORECASE)
    names = [path.stem, *path.parts[:-1]]
    names += [node.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    assert not [name for name in names if empty.search(name)]


# ------------------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize("folder", FOLDERS_WITH_A_MAP)
def test_the_map_of_a_folder_has_a_line_for_each_file(folder: str) -> None:
    """In `tests`, where files stand opposite their source, it has one for each subfolder and shared file."""
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    files = [path.relative_to(folder) for path in python_files(folder)]
    if folder == "tests":
        wanted = {f"{path.parts[0]}/" for path in files if len(path.parts) > 1}
        wanted |= {path.name for path in files if len(path.parts) == 1 and path.name != "__init__.py"}
    else:
        wanted = {path.name for path in files if path.name != "__init__.py"}
    text = re.sub(r"[\w./-]*/(?=\w+\.py)", "", text)  # `sync/engine.py` stands for `engine.py`
    missing = sorted(name for name in wanted if not re.search(rf"(?<![\w/]){re.escape(name)}", text))
    assert not missing, f"{folder}/README.md does not tell what these are for"


def test_each_word_of_make_has_a_line_that_explains_it() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    explained = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert set(phony[1].split()) == explained


# ---------------------------------------------------------------------------------------------- what it needs


def distribution(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[ <>=!~;\[(]", name, maxsplit=1)[0]).lower()


def declared(*extras: str) -> set[str]:
    lines = list(project()["dependencies"])
    for extra in extras:
        lines += project()["optional-dependencies"][extra]
    return {distribution(line) for line in lines}


def outside_imports(path: Path) -> Iterator[str]:
    """Name the packages of others that a module cannot be imported without, or a function of it called."""
    optional: set[ast.AST] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Try) and any("ImportError" in ast.dump(handler) for handler in node.handlers):
            optional.update(child for statement in node.body for child in ast.walk(statement))
    for node in ast.walk(tree_of(path)):
        if node in optional:
            continue
        match node:
            case ast.Import(names=names):
                found = [alias.name.partition(".")[0] for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                found = [module.partition(".")[0]]
            case _:
                continue
        ours_or_standard = {*SOURCE_FOLDERS, "tests", *sys.stdlib_module_names, "compression"}
        yield from (name for name in found if name not in ours_or_standard)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("crdt", ()), ("client_sdk", ()), ("server", ("server",))],
    ids=["crdt", "client", "server"],
)
def test_a_package_imports_only_what_its_install_brings(folder: str, extras: tuple[str, ...]) -> None:
    """A device's install pulls no package that only a server needs."""
    brought_by = packages_distributions()
    allowed = declared(*extras)
    undeclared = {
        f"{path} imports {name}"
        for path in python_files(folder)
        for name in outside_imports(path)
        if not {distribution(dist) for dist in brought_by.get(name, [])} & allowed
    }
    assert not undeclared


def test_every_package_we_name_is_pinned_with_hashes() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    requirements = re.findall(r"^[a-z0-9][^\n]*(?:\n +--hash[^\n]*)*", text, re.MULTILINE)
    pinned = {distribution(requirement) for requirement in requirements}
    assert declared("server", "dev") <= pinned
    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []


def test_the_version_is_written_in_one_place() -> None:
    assert version("pjais-sync") == project()["version"], "run `make install`"
    written_again = [
        str(path)
        for path in python_files(*SOURCE_FOLDERS)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and node.value == project()["version"]
    ]
    assert not written_again, "ask importlib.metadata"


def test_nothing_in_the_tree_names_a_registry_or_a_path_of_one_machine() -> None:
    told = re.compile(
        r"pypi\.(org|python)|pythonhosted\.|npmjs\.|deb\.debian\.|-index-url|--find-links"
        r"|/root/|/opt/(pypi|wheels)|/work/(main|shared)"
    )
    found = []
    for path in files_in_the_tree():
        if path.name in {"Makefile", Path(__file__).name}:
            continue  # these two look for such lines
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{number}" for number, line in enumerate(text.splitlines(), 1) if told.search(line)]
    assert not found


# ------------------------------------------------------------------------------------------------------ tests


def sleeps_outside_of_loops(path: Path) -> Iterator[int]:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    in_loops = {
        child
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.While | ast.For | ast.AsyncFor)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree_of(path)):
        match node:
            case ast.Call(func=ast.Attribute(ast.Name("asyncio" | "time"), "sleep"), args=[amount]):
                is_yield = isinstance(amount, ast.Constant) and amount.value == 0
                if node not in in_loops and not is_yield and "# sleep:" not in lines[node.lineno - 1]:
                    yield node.lineno


@pytest.mark.parametrize("path", python_files("tests"), ids=str)
def test_no_test_sleeps(path: Path) -> None:
    """It turns the clock, or asks in a loop until a condition holds; `# sleep: why` excepts a line."""
    assert list(sleeps_outside_of_loops(path)) == []
