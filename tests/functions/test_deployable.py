"""What is uploaded, installed and started as the platform does it: only the files that .gcloudignore leaves, in an
environment that has what requirements.txt asks for and nothing else, with the variables that a deployed service has.

Not done: nothing is downloaded (what requirements.txt asks for is linked out of this environment, distribution by
distribution, after its version was checked), and Google's builder image is not run.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from tests.functions.server import free_port, until
from tests.infra.deploy_script import deploy, environment_of
from tests.services import do_without

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Deployed:
    """What the build has made."""

    source: Path
    bin: Path
    environment: dict[str, str]
    """What infra/deploy.sh gives to its service."""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    source, installed = tmp_path_factory.mktemp("workspace"), tmp_path_factory.mktemp("installed")
    for name in _uploaded():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    venv.create(installed, symlinks=True)
    _install(source, installed, builder=tmp_path_factory.mktemp("builder"))
    _link(_needed(_wanted(source / "requirements.txt"), _packages(installed)), installed)
    deploying = tmp_path_factory.mktemp("deploying")
    return Deployed(source, installed / "bin", environment_of(deploy(deploying)))


@functools.cache
def _uploaded() -> list[str]:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        do_without(FileNotFoundError("only gcloud knows what .gcloudignore means"))
    listed = subprocess.run(
        [gcloud, "meta", "list-files-for-upload", "."], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.splitlines()


def _wanted(file: Path) -> Iterable[Requirement]:
    """What the project in its own folder needs with the extras that requirements.txt names."""
    [line] = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    match = re.fullmatch(r"\.(\[[a-z,]+\])?", line)
    assert match, f"the folder itself is installed, and nothing besides: {line!r}"
    return [Requirement(f"tinyworkflow-core{match[1] or ''}")]


def _needed(wanted: Iterable[Requirement], project: Path | None = None) -> dict[str, Distribution]:
    """Every distribution that pip would install for these, at the version that is here; the project itself is what was
    installed in `project`, and not among them."""
    found: dict[str, Distribution] = {}
    rest, seen = list(wanted), set()
    while rest:
        requirement = rest.pop()
        name = _canonical(requirement.name)
        if name == "tinyworkflow-core":
            [here] = distributions(name=name, path=[str(project)])
        else:
            here = found[name] = distribution(name)
        assert requirement.specifier.contains(here.version, prereleases=True), f"{requirement}: here is {here.version}"
        for text in here.requires or ():
            one = Requirement(text)
            extras = requirement.extras or {""}
            if str(one) not in seen and (one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras)):
                seen.add(str(one))
                rest.append(one)
    return found


def _packages(installed: Path) -> Path:
    [packages] = installed.glob("lib/python3*/site-packages")
    return packages


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _link(needed: Mapping[str, Distribution], installed: Path) -> None:
    """These distributions, with their programs."""
    packages = _packages(installed)
    for one in needed.values():
        for file in one.files or ():
            if ".." not in file.parts:
                os.makedirs(packages / file.parent, exist_ok=True)
                os.symlink(str(file.locate()), packages / file)
        for entry in one.entry_points.select(group="console_scripts"):
            program = installed / "bin" / entry.name
            code = f"import sys\nfrom {entry.module} import {entry.attr}\nsys.exit({entry.attr}())\n"
            program.write_text(f"#!{installed / 'bin/python'}\n{code}")
            program.chmod(0o755)


def _install(source: Path, installed: Path, *, builder: Path) -> None:
    """`pip install -r requirements.txt`, where what builds the package is at hand and nothing else is looked for."""
    (builder / "lib/python3/site-packages").mkdir(parents=True)
    (builder / "bin").mkdir()
    _link(_needed([Requirement("hatchling")]), builder)
    command = [sys.executable, "-m", "pip", "--python", str(installed / "bin/python"), "install", "--quiet"]
    command += ["--no-deps", "--no-index", "--no-compile", "--no-build-isolation", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--requirement", "requirements.txt"],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(builder / "lib/python3/site-packages")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _started(deployed: Deployed, target: str, **settings: str) -> Iterator[str]:
    """The service as Cloud Run starts it: its program without arguments, all else in the environment. Its URL."""
    port = free_port()
    environ = {
        "PATH": f"{deployed.bin}:/usr/bin:/bin",
        "HOME": str(deployed.source),
        "PORT": str(port),
        "FUNCTION_TARGET": target,
        "FUNCTION_SOURCE": "functions/main.py",  # as GOOGLE_FUNCTION_SOURCE was at the build
        "FUNCTION_SIGNATURE_TYPE": "http",
        "K_SERVICE": f"tinyworkflow-{target}",
        "K_REVISION": f"tinyworkflow-{target}-00001",
        "K_CONFIGURATION": f"tinyworkflow-{target}",
        **deployed.environment,
        **settings,
    }
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["functions-framework"], cwd=deployed.source, env=environ, stdout=output, stderr=subprocess.STDOUT,
            executable=str(deployed.bin / "functions-framework"), start_new_session=True,
        )  # fmt: skip

        def printed() -> str:
            output.seek(0)
            return output.read().decode(errors="replace")

        def answers() -> bool:
            assert process.poll() is None, printed()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(answers, 60, printed)
            yield f"http://127.0.0.1:{port}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("target", ["app", "worker"])
def test_what_is_uploaded_starts_as_it_is_deployed_and_lets_nobody_in(deployed: Deployed, target: str) -> None:
    with _started(deployed, target, TINYWORKFLOW_API_KEYS="k" * 43, TINYWORKFLOW_LINK_KEYS="l" * 43) as url:
        assert httpx.get(f"{url}/healthz", timeout=20).status_code == 200
        refused = httpx.post(f"{url}/internal/advance", json={"run_id": "r"}, timeout=20)
        assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
        runs = httpx.get(f"{url}/v1/runs", timeout=20).status_code
        assert runs == (401 if target == "app" else 404)


def test_all_that_a_service_may_load_later_is_installed_and_the_package_is_not_this_folder(deployed: Deployed) -> None:
    code = (
        "import google.cloud.tasks_v2, google.cloud.firestore, google.auth.jwt, cryptography, tinyworkflow_core as t;"
        "import google.auth.crypt.rsa, standardwebhooks, cloudevents; print(t.__file__)"
    )
    done = subprocess.run(
        [deployed.bin / "python", "-c", code], cwd="/", env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(deployed.bin.parent)


def test_tests_documents_and_secrets_are_not_uploaded() -> None:
    tops = {name.split("/")[0] for name in _uploaded()}
    assert tops == {"LICENSE", "README.md", "functions", "pyproject.toml", "requirements.txt", "tinyworkflow_core"}
