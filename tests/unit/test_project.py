"""The project's own rules: sizes, imports, wording."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import fstx
from fstx import layouts, registry
from fstx.cli import exits
from fstx.cli.app import app

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "fstx"
KIT = ROOT / "conformance" / "fstx_conformance"
EXAMPLE = ROOT / "conformance" / "example_backend"
MODULES = sorted([*SOURCE.rglob("*.py"), *KIT.rglob("*.py"), *(EXAMPLE / "src").rglob("*.py")])
PROSE = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), EXAMPLE / "README.md"])
TESTS = sorted([*(ROOT / "tests").rglob("test_*.py"), *(EXAMPLE / "tests").rglob("test_*.py")])

MODULE_LINES = 500
FUNCTION_LINES = 70


def test_modules_are_found() -> None:
    """Protects the checks below from an empty list."""
    assert len(MODULES) > 40
    assert len(PROSE) > 10


def test_modules_are_short() -> None:
    """Protects readability: a module has 500 lines at most."""
    long = {str(m.relative_to(ROOT)): n for m in MODULES if (n := _lines(m)) > MODULE_LINES}
    assert not long


def test_functions_are_short() -> None:
    """Protects readability: a function has 70 lines at most, signature and docstring not counted."""
    long = {}
    for module in MODULES:
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = _body_lines(node)
                if length > FUNCTION_LINES:
                    long[f"{module.relative_to(ROOT)}:{node.name}"] = length
    assert not long


def test_machines_use_the_standard_library_without_effects() -> None:
    """Protects that machines decide only: nothing in them can touch files, clocks or chance."""
    allowed = {
        "__future__",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "itertools",
        "typing",
    }
    found = {
        (module.name, name)
        for module in MODULES
        if "machines" in module.parts
        for name in _imports(module)
        if name.partition(".")[0] not in allowed and not name.startswith("fstx")
    }
    assert not found


def test_layouts_and_sources_touch_no_files() -> None:
    """Protects that formats and arrays know no storage: no file calls, neither builtin nor of os."""
    harmless = {"cpu_count", "process_cpu_count", "getpid", "environ", "fspath", "PathLike"}
    harmless |= {"register_at_fork", "sched_getaffinity"}
    found = []
    for module in MODULES:
        if not {"layouts", "sources"} & set(module.parts):
            continue
        for node in ast.walk(_tree(module)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "open"
            ):
                found.append((module.name, node.lineno, "open"))
            of_os = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if of_os and node.value.id == "os" and node.attr not in harmless:
                found.append((module.name, node.lineno, f"os.{node.attr}"))
    assert not found


def test_no_exception_is_swallowed_silently() -> None:
    """Protects that no failure vanishes: no handler consists of ``pass`` alone, none is bare."""
    found = [
        (str(module.relative_to(ROOT)), handler.lineno)
        for module in MODULES
        for handler in ast.walk(_tree(module))
        if isinstance(handler, ast.ExceptHandler)
        and (
            handler.type is None
            or (
                _catches_all(handler)
                and len(handler.body) == 1
                and isinstance(handler.body[0], ast.Pass)
            )
        )
    ]
    assert not found


def test_import_needs_nothing_optional(tmp_path: Path) -> None:
    """Protects that every name is there with fsspec and numpy alone, and that they too come when used.

    ``import fstx`` takes errors only; a transaction on local disk needs no arrays and no event loop.
    """
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in sys.argv[2:]:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import fstx\n"
        "heavy = {'numpy', 'asyncio', 'fsspec'}\n"
        "early = {*heavy, 'importlib.metadata', 'dataclasses', 'concurrent.futures'}\n"
        "assert not early & set(sys.modules), early & set(sys.modules)\n"
        "assert set(fstx.__all__) <= set(dir(fstx))\n"
        "fstx.begin(sys.argv[1]).rollback()\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "for name in fstx.__all__:\n"
        "    value = getattr(fstx, name)\n"
        "    assert getattr(value, '__name__', name) == name, name\n"
        "from fstx import *\n"
        "assert jobs is fstx.jobs and Transaction is fstx.protocol.Transaction\n"
        "try:\n"
        "    fstx.nothing\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )
    absent = ["dask", "distributed", "zarr", "numcodecs", "tifffile", "imagecodecs", "xarray"]
    absent += ["cupy", "typer", "rich", "PIL", "pyproj"]
    absent += ["s3fs", "gcsfs", "adlfs", "sshfs", "botocore", "aiohttp", "obstore", "google_crc32c"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out"), *absent],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'fstx' has no attribute 'nothing'" in done.stdout


def test_each_door_can_be_opened_first() -> None:
    """Protects from cycles: backends and public modules come, whichever a process asks for first."""
    code = (
        "import multiprocessing, sys\n"
        "import asyncio, concurrent.futures, importlib.metadata, fsspec, numpy\n"
        "import fsspec.implementations.memory, fsspec.implementations.local\n"
        "fork = multiprocessing.get_context('fork')\n"
        "for name in sys.argv[1:]:\n"
        "    child = fork.Process(target=__import__, args=(name,))\n"
        "    child.start()\n"
        "    child.join()\n"
        "    if child.exitcode:\n"
        "        print(name)\n"
    )
    backends = {place.partition(":")[0] for place in registry._BUILT_IN.values()}
    doors = backends | {f"fstx.{module}" for module in (*fstx._NAMES, "filesystem", "zarr_store")}
    assert len(doors) > 12
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(doors)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_test_says_what_it_protects() -> None:
    """Protects the tests' use as documentation: each has a docstring (inherited suites aside)."""
    silent = []
    for path in TESTS:
        tree = _tree(path)
        plain = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.bases]
        for node in [*tree.body, *(method for c in plain for method in c.body)]:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if named and node.name.startswith("test_") and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not silent


def test_links_of_the_documentation_lead_somewhere() -> None:
    """Protects readers from dead relative links in README and docs."""
    dead = []
    for page in PROSE:
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                dead.append((str(page.relative_to(ROOT)), target))
    assert not dead


def test_reference_names_everything() -> None:
    """Protects the reference from falling behind: every public name, option and exit code is on its page."""
    api = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    errors = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    public = [name for name in fstx.__all__ if name != "__version__"]
    assert [n for n in public if f"`{n}" not in api + errors] == []
    assert [c.value for c in fstx.Capability if f"| {c.value} |" not in api] == []
    page = (ROOT / "docs/reference/layouts.md").read_text(encoding="utf-8")
    modules = [layouts.choose(name) for name in ("a.vrt", "a.zarr", "a.npy")]
    assert [o for m in modules for o in sorted(m.OPTIONS) if f"`{o}`" not in page] == []
    cli = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    codes = (
        exits.OK,
        exits.FAILED,
        exits.USAGE,
        exits.CONFLICT,
        exits.UNSETTLED,
        exits.INTERRUPTED,
    )
    assert [c for c in codes if f"| {c} |" not in cli] == []
    write = typer.main.get_command(app).commands["write"]  # type: ignore[attr-defined]
    named = [o for p in write.params for o in p.opts if o.startswith("--") and o != "--help"]
    assert len(named) > 10
    assert [o for o in named if f"`{o}`" not in cli and f"`{o} " not in cli] == []
    kit = typer.main.get_command(app).commands["conformance"].commands  # type: ignore[attr-defined]
    assert [c for c in kit if f"`fstx conformance {c} " not in cli] == []
    named = [o for c in kit.values() for p in c.params for o in p.opts if o.startswith("--")]
    assert [o for o in named if f"`{o}`" not in cli and o != "--help"] == []


@pytest.mark.parametrize("page", PROSE, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_are_plain(page: Path) -> None:
    """Protects the wording: every page has a title, no page promises what is not there."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert not re.search(r"(?i)\b(TODO|FIXME|XXX|coming soon|lorem)\b", text)


def _lines(module: Path) -> int:
    return len(module.read_text(encoding="utf-8").splitlines())


def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def _catches_all(handler: ast.ExceptHandler) -> bool:
    names = ast.walk(handler.type) if handler.type is not None else ()
    return any(isinstance(n, ast.Name) and n.id in ("Exception", "BaseException") for n in names)


def _imports(module: Path) -> set[str]:
    found = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found
