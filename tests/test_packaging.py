"""What is shipped: a wheel and an sdist that install and work alone, with compatible licences and one set of versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import setup

COMPATIBLE = re.compile(
    r"\b(Apache|MIT|BSD|ISC|PSF|Python Software Foundation|MPL|Mozilla|Unlicense|0BSD|CC0|Zlib|LGPL|EPL-2.0)\b",
    re.IGNORECASE,
)  # EPL, MPL and LGPL bind only their own files, which are installed beside ours and not changed


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist, made by the build backend as installers call it."""
    folder, backend = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("backend")
    (wanted,) = tomllib.loads((setup.ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(backend)]
    subprocess.run([*pip, wanted], check=True, capture_output=True)
    build = "import sys; from hatchling.build import build_wheel as w, build_sdist as s; w(sys.argv[1]); s(sys.argv[1])"
    env = {**os.environ, "PYTHONPATH": str(backend)}
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=setup.ROOT, env=env, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (built,) = dist.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_its_texts_and_no_test(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"parhelia_mcp", "parhelia", f"parhelia_mcp-{_version()}.dist-info"}
    for needed in ("py.typed", "parhelia.toml", "checkpoint/FORMAT.md", "_hooks/run", "_skills/delegate/SKILL.md"):
        assert f"parhelia_mcp/{needed}" in names
    assert not [name for name in names if "test" in name.lower() or "bench" in name or "__pycache__" in name]


def test_it_works_from_the_wheel_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Only the dependencies come from elsewhere; the package itself and its programs are the wheel's."""
    place = tmp_path / "env"
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(place / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True, capture_output=True)
    (here,) = {Path(str(metadata.distribution("click").locate_file(""))).resolve()}
    (site / "dependencies.pth").write_text(f"{here}\n")
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    python = str(place / "bin" / "python")
    where = "import parhelia_mcp, parhelia.hook_validator; print(parhelia_mcp.__file__)"
    found = subprocess.run([python, "-c", where], env=env, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert Path(found.stdout.strip()).is_relative_to(place)
    parhelia = [str(place / "bin" / "parhelia")]
    assert _version() in subprocess.run([*parhelia, "--version"], env=env, capture_output=True, text=True).stdout
    told = subprocess.run([*parhelia, "help", "oom"], env=env, capture_output=True, text=True, check=True)
    assert "container keeps crashing" in told.stdout
    demo = [python, str(setup.ROOT / "tests" / "demo" / "demo.py")]
    shown = subprocess.run(demo, env=env, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Your tree is as it was" in shown.stdout
    assert "Hallo" in shown.stdout


def test_the_sdist_has_what_it_takes_to_build_and_test(dist: Path) -> None:
    (built,) = dist.glob("*.tar.gz")
    with tarfile.open(built) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/front.py", "skills/delegate/SKILL.md"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/"))]


def test_every_locked_dependency_has_a_licence_that_goes_with_ours() -> None:
    for name in _locked("requirements.lock"):
        about = metadata.metadata(name)
        said = [about.get("License-Expression") or "", (about.get("License") or "")[:200]]
        said += [line for line in about.get_all("Classifier") or () if line.startswith("License")]
        assert COMPATIBLE.search(" ".join(said)), (name, said)


def test_what_is_installed_is_what_is_locked_and_the_project_asks_for_no_more() -> None:
    locked = _locked("requirements.lock")
    for name, version in {**locked, **_locked("requirements-dev.lock")}.items():
        assert metadata.version(name) == version, name
    assert locked.items() <= _locked("requirements-dev.lock").items()
    project = tomllib.loads((setup.ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=\[ ;]", line)[0].lower() for line in project["dependencies"]}
    assert wanted <= set(locked)
    assert project["version"] == _version()
    assert {name: locked[name] for name in ("mcp", "modal")} == {name: setup.pins()[name] for name in ("mcp", "modal")}


def test_a_machine_without_venv_is_told_the_one_command(tmp_path: Path) -> None:
    """A python whose venv module is missing, as on Debian without python3-venv, and nobody who may install it."""
    bare = tmp_path / "sitecustomize.py"
    bare.write_text("import os, sys\nsys.modules['venv'] = None\nos.geteuid = lambda: 1000\n")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    argv = [sys.executable, str(setup.ROOT / "tests" / "setup.py"), "venv", str(tmp_path / "env")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "sudo apt-get install -y python3-venv" in done.stderr
    assert "Traceback" not in done.stderr


def _version() -> str:
    import parhelia_mcp

    return parhelia_mcp.__version__


def _locked(file: str) -> dict[str, str]:
    """What a lock file pins for this platform."""
    lines = re.findall(r"^([A-Za-z0-9].*?)(?: *\\)?$", (setup.ROOT / file).read_text(), re.MULTILINE)
    pins = [Requirement(line) for line in lines]
    return {
        pin.name.lower(): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }
