"""What the import contracts in pyproject.toml cannot say: who is private to whom, and which rooms a feature has."""

from __future__ import annotations

import re
from pathlib import Path

import grimp
import pytest

import rowlock

FEATURES = {"accounts", "allocation", "events", "orders", "reports"}
OUTSIDE_THE_SERVICE_LAYER = {"api", "commands", "rules", "errors", "model"}
MOUTHS = {"rowlock.app", "rowlock.asgi"}
SOURCE = Path(rowlock.__file__).parent
STATEMENT = re.compile(r"[\"']\s*(?:SELECT \w|INSERT INTO \w|UPDATE \w+ SET|DELETE FROM \w|WITH \w+ AS)")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("rowlock", cache_dir=None)


def test_every_package_is_a_feature_or_has_a_name_here() -> None:
    packages = {file.parent.name for file in SOURCE.glob("*/__init__.py")}
    assert packages == FEATURES | {"cli", "kernel", "web"}


def test_only_a_features_own_service_layer_imports_its_repository(graph: grimp.ImportGraph) -> None:
    repositories = {module for module in graph.modules if module.endswith(".repository")}
    assert repositories == {f"rowlock.{feature}.repository" for feature in FEATURES}
    for repository in repositories:
        feature = repository.removesuffix(".repository")
        strangers = {
            importer
            for importer in graph.find_modules_that_directly_import(repository)
            if importer.rpartition(".")[0] != feature
            or importer.rpartition(".")[2] in OUTSIDE_THE_SERVICE_LAYER
        }
        assert strangers == set(), f"{repository} is private to its feature's service layer"


def test_only_the_mouths_read_settings(graph: grimp.ImportGraph) -> None:
    readers = graph.find_modules_that_directly_import("rowlock.kernel.settings")
    assert {reader for reader in readers if not reader.startswith("rowlock.cli.")} <= MOUTHS


def test_nobody_imports_a_mouth(graph: grimp.ImportGraph) -> None:
    assert graph.find_modules_that_directly_import("rowlock.asgi") == set()


def test_only_repositories_and_the_kernel_speak_sql() -> None:
    speakers = {
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*.py")
        if STATEMENT.search(file.read_text())
    }
    elsewhere = {
        name for name in speakers if not name.startswith("kernel/") and not name.endswith("/repository.py")
    }
    assert elsewhere == {
        "app.py",  # asks the database whether it is there
        "housekeeping.py",  # takes the advisory lock of the chores
    }
