"""Makes google_provider.json anew: what the resource types used in infra/ take, read out of HashiCorp's own bindings.

    npm pack @cdktf/provider-google@16.12.1
    python tests/infra/make_schema.py cdktf-provider-google-16.12.1.tgz

The package (Copyright (c) HashiCorp, Inc., Mozilla Public License 2.0) is generated from the schema of the provider
`google`; its source maps hold the TypeScript, whose comments say of each argument whether it is computed, optional or
required. Only those facts are kept (names, types, flags), no code and no prose. Attributes of no simple type, which the
provider computes, are left out: infra/ reads none of them.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

PROVIDER_VERSION = "6.50.0"
TARGET = Path(__file__).with_name("google_provider.json")

RESOURCES = (
    "google_cloud_run_v2_service_iam_member",
    "google_cloud_scheduler_job",
    "google_cloud_tasks_queue",
    "google_cloud_tasks_queue_iam_member",
    "google_cloudfunctions2_function",
    "google_firestore_backup_schedule",
    "google_firestore_database",
    "google_firestore_field",
    "google_firestore_index",
    "google_monitoring_alert_policy",
    "google_monitoring_notification_channel",
    "google_project_iam_member",
    "google_project_service",
    "google_secret_manager_secret",
    "google_secret_manager_secret_iam_member",
    "google_service_account",
    "google_service_account_iam_member",
    "google_storage_bucket",
    "google_storage_bucket_object",
)
DATA_SOURCES = ("google_project",)

TYPES: dict[str, Any] = {
    "string": "string",
    "number": "number",
    "boolean": "bool",
    "stringList": ["list", "string"],
    "stringMap": ["map", "string"],
    "numberList": ["list", "number"],
}
GETTERS = {"getStringAttribute": "string", "getNumberAttribute": "number", "getBooleanAttribute": "bool"}

ARGUMENTS = re.compile(
    r"export function (\w+)ToHclTerraform\(.*?const attrs = \{(.*?)\n  \};"
    r"|synthesizeHclAttributes\(\).*?const attrs = \{(.*?)\n    \};",
    re.S,
)
ARGUMENT = re.compile(r'(\w+): \{\s+value: [^\n]*\n\s+isBlock: (\w+),\s+type: "(\w+)",\s+storageClassType: "(\w+)"')
CLASS = re.compile(r"^export class (\w+) extends (.*?)^\}", re.S | re.M)
FLAGS = re.compile(r"// (\w+) - computed: (\w+), optional: (\w+), required: (\w+)\n(.*?)(?=\n\n|\Z)", re.S)
INTERFACE = re.compile(r"^export interface (\w+)[^{]*\{(.*?)^\}", re.S | re.M)
FIELD = re.compile(r"#(\w+) \w+#\w+\}\s+(?:\*[^\n]*\s+)*\*/\s+readonly \w+\??: ([^;]+);")


def schema_of(source: str) -> dict[str, Any]:
    """The block that a resource's TypeScript describes: {"attributes": {name: {...}}, "blocks": {name: {...}}}."""
    arguments = {(match[1] or ""): ARGUMENT.findall(match[2] or match[3] or "") for match in ARGUMENTS.finditer(source)}
    classes = {match[1]: match[2] for match in CLASS.finditer(source)}
    fields = {match[1]: dict(FIELD.findall(match[2])) for match in INTERFACE.finditer(source)}
    [main] = [
        name for name, body in classes.items() if re.match(r"cdktf\.Terraform(Resource|DataSource|Provider)", body)
    ]

    def block(struct: str | None) -> dict[str, Any]:
        key = "" if struct is None else struct[0].lower() + struct[1:]
        body = classes[main if struct is None else f"{struct}OutputReference"]
        kinds = fields[f"{main}Config" if struct is None else struct]
        flags = {match[1]: match.groups()[1:] for match in FLAGS.finditer(body)}
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for name, is_block, nesting, stored in arguments[key]:
            if is_block == "true" and main == "GoogleProvider":
                continue  # they have no class that could be read, and infra/ uses none
            computed, optional, required, _ = flags[name]
            if is_block == "true":
                single = "[]" not in kinds[name]
                inner = stored if nesting == "struct" else stored.removesuffix("List").removesuffix("Set")
                blocks[name] = {
                    "nesting": "single" if nesting == "struct" else nesting,
                    "min": int(required == "true"),
                    "max": int(single and nesting != "struct"),
                    **block(inner),
                }
            else:
                kind = TYPES[stored]
                if nesting == "set":
                    kind = ["set", kind[1]]
                attributes[name] = _attribute(kind, computed, optional, required)
        for name, (computed, optional, required, code) in flags.items():
            getter = re.search(r"this\.(\w+)\('", code)
            if name not in attributes and name not in blocks and getter and getter[1] in GETTERS:
                attributes[name] = _attribute(GETTERS[getter[1]], computed, optional, required)
        return {"attributes": dict(sorted(attributes.items())), "blocks": dict(sorted(blocks.items()))}

    return block(None)


def provider_schema(source: str) -> dict[str, Any]:
    """What the block `provider "google"` takes, but for the addresses of single services."""
    block = schema_of(source)
    kept = {name: one for name, one in block["attributes"].items() if not name.endswith("_custom_endpoint")}
    return {**block, "attributes": kept}


def _attribute(kind: Any, computed: str, optional: str, required: str) -> dict[str, Any]:
    flags = {"computed": computed, "optional": optional, "required": required}
    return {"type": kind, **{flag: True for flag, value in flags.items() if value == "true"}}


def typescript(package: tarfile.TarFile, folder: str) -> str:
    """The TypeScript of one resource, out of its source map."""
    member = package.extractfile(f"package/lib/{folder}/index.js")
    assert member is not None
    encoded = member.read().decode().rsplit("base64,", 1)[1]
    [source] = json.loads(base64.b64decode(encoded))["sourcesContent"]
    return str(source)


def main() -> None:
    with tarfile.open(sys.argv[1]) as package:
        manifest = package.extractfile("package/package.json")
        assert manifest is not None
        facts = json.load(manifest)
        made = {
            "made_by": "tests/infra/make_schema.py",
            "from": f"{facts['name']} {facts['version']}, Copyright (c) HashiCorp, Inc., MPL-2.0",
            "version": PROVIDER_VERSION,
            "provider": provider_schema(typescript(package, "provider")),
            "resources": {name: schema_of(typescript(package, _folder(name))) for name in RESOURCES},
            "data_sources": {
                name: schema_of(typescript(package, f"data-{_folder(name, '')}")) for name in DATA_SOURCES
            },
        }
    lines = json.dumps(made, separators=(",", ":"), ensure_ascii=False)
    for name in (*RESOURCES, *DATA_SOURCES):
        lines = lines.replace(f'"{name}":{{"attributes"', f'\n"{name}":{{"attributes"')
    TARGET.write_text(lines + "\n")


def _folder(name: str, dropped: str = "google_") -> str:
    return name.removeprefix(dropped).replace("_", "-")


if __name__ == "__main__":
    main()
