"""Imports point down only (docs/architecture.md): the layers as a test."""

import ast
from pathlib import Path

import pytest

PACKAGE = "flwr_collabedit"
ROOT = Path(__file__).resolve().parent.parent

# What each part may import of the others; nothing else of the project.
MAY_IMPORT = {
    "errors": set(),
    "algebra": {"errors"},
    "data": {"errors"},
    "edited_model": set(),
    "models": {"errors", "edited_model"},
    "editors": {"errors", "algebra", "data", "models"},
    "evaluation": {"errors", "algebra", "data", "models"},
    "instruction": {"errors", "algebra"},
    "payloads": {"errors", "algebra", "edited_model", "instruction"},
    "replies": {"errors", "algebra", "evaluation", "instruction", "payloads"},
    "mediator_payload": {"errors", "algebra", "instruction", "payloads", "replies"},
    "personal_task": {"errors"},
    "strategies": {
        *("errors", "algebra", "evaluation", "personal_task"),
        *("edited_model", "instruction", "payloads", "replies", "mediator_payload"),
        *("edit_set", "declaration", "conflict_resolution"),
    },
    "progress": set(),
    "fact_tags": {"errors", "data"},
    "conflict_resolution": {"errors"},
    "target_store": {"errors", "data", "editors", "instruction"},
    "personal_store": {"errors", "algebra", "mediator_payload"},
    "personal_editing": {
        *("algebra", "data", "editors", "models", "instruction", "payloads"),
        *("mediator_payload", "personal_store", "personal_task"),
    },
    "edit_set": {"errors"},
    "declaration": {"errors", "edit_set"},
    "own_edits": {"data", "edit_set"},
    "second_moments": {"errors", "editors"},
    "round_targets": {
        *("errors", "data", "editors", "instruction", "models", "progress"),
        "target_store",
    },
    "client_scores": {"data", "evaluation", "models", "payloads", "progress"},
    "declaring_client": {
        *("data", "declaration", "edit_set", "edited_model", "editors", "errors"),
        *("fact_tags", "instruction", "models", "own_edits", "payloads", "evaluation"),
        *("round_targets", "shared_client"),
    },
    "client_health": {"evaluation", "models", "payloads"},
    "shared_client": {
        *("data", "edit_set", "edit_work", "edited_model", "editors"),
        *("instruction", "models", "own_edits", "payloads", "round_targets"),
        "second_moments",
    },
    "edit_work": {"data", "editors", "models", "instruction", "payloads"},
    "personal_client": {
        *("errors", "data", "editors", "models", "edited_model", "instruction"),
        *("payloads", "mediator_payload"),
        *("personal_editing", "personal_store", "personal_task"),
    },
    "client": {
        *("errors", "data", "models", "editors", "evaluation", "client_scores"),
        *("edited_model", "instruction", "payloads", "target_store", "edit_set"),
        *("personal_client", "personal_store", "own_edits", "round_targets"),
        *("second_moments", "shared_client", "client_health", "declaring_client"),
        "fact_tags",
    },
    "client_app": {
        *("errors", "data", "models", "instruction", "payloads", "client"),
        *("client_health", "edit_set", "fact_tags"),
    },
}
# Third-party packages that a part must not need.
MUST_NOT_NEED = {
    "algebra": {"flwr", "transformers", "logging", "pathlib"},
    "data": {"flwr", "torch", "transformers"},
    "models": {"flwr"},
    "editors": {"flwr"},
    "evaluation": {"flwr"},
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
