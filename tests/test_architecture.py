"""Imports point down only (docs/architecture.md): the layers as a test."""

import ast
from pathlib import Path

import pytest

PACKAGE = "flwr_collabedit"
ROOT = Path(__file__).resolve().parent.parent

# What each part may import of the others; nothing else of the project.
MAY_IMPORT = {
    "errors": set(),
    "progress": set(),
    "files": {"errors"},
    "edited_model": set(),
    "editor_names": {"errors"},
    "algebra": {"errors", "editor_names"},
    "data": {"errors"},
    "models": {"errors", "edited_model"},
    "editors": {"editor_names", "errors", "algebra", "data", "models", "files"},
    "evaluation": {"errors", "data", "models"},
    "locating": {"errors", "data", "models", "editors", "evaluation"},
    "privacy": {"errors", "algebra", "data", "models", "editors"},
    "export": {"errors", "models", "evaluation", "files"},
    "fact_tags": {"errors", "data"},
    "conflict_resolution": {"errors"},
    "messages": {"editor_names", "errors", "algebra", "evaluation", "edited_model"},
    "strategies": {
        *("errors", "algebra", "evaluation", "edited_model", "messages"),
        *("conflict_resolution", "files", "editor_names"),
    },
    "client": {
        *("errors", "algebra", "data", "models", "editors", "evaluation", "messages"),
        *("edited_model", "fact_tags", "progress", "files", "editor_names"),
    },
    "client_app": {
        *("errors", "data", "models", "editors", "evaluation", "messages", "client"),
        "fact_tags",
    },
    "cli": {
        *("errors", "algebra", "data", "models", "editors", "evaluation", "files"),
        *("export", "locating", "editor_names"),
    },
}
# Third-party packages that a part must not need.
MUST_NOT_NEED = {
    "algebra": {"flwr", "transformers", "logging", "pathlib"},
    "data": {"flwr", "torch", "transformers"},
    "models": {"flwr"},
    "editors": {"flwr"},
    "evaluation": {"flwr"},
    "locating": {"flwr"},
    "privacy": {"flwr"},
    "strategies": {"transformers"},
    "fact_tags": {"flwr", "torch", "transformers"},
    "conflict_resolution": {"flwr", "torch", "transformers"},
}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules.add(f"{node.module}")
    return modules


def sources() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def own_part(path: Path) -> str:
    relative = path.relative_to(ROOT / PACKAGE)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down_only(path: Path) -> None:
    part = own_part(path)
    if part == "__init__":
        return
    allowed = MAY_IMPORT[part] | {part}
    modules = imported_modules(path)

    own = {part_of(name) for name in modules if name.split(".")[0] == PACKAGE}
    foreign = {name.split(".")[0] for name in modules}

    assert own <= allowed, f"{path} imports {sorted(own - allowed)}"
    assert "simulations" not in foreign
    assert not foreign & MUST_NOT_NEED.get(part, set())


def test_every_part_has_a_place_in_the_layers() -> None:
    assert {own_part(path) for path in sources()} - {"__init__"} == set(MAY_IMPORT)


def test_simulations_are_not_imported_by_the_library() -> None:
    for path in sources():
        assert not any(n.startswith("simulations") for n in imported_modules(path))
