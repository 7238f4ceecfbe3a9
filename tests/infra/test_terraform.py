"""infra/*.tf: that the real Terraform takes it, and that what it would make fits together and to the code."""

from __future__ import annotations

import ast
import base64
import re
import shutil
from pathlib import Path
from typing import Any

from tests.infra.conftest import GIVEN
from tests.infra.provider import PROJECT_NUMBER
from tests.infra.terraform import INFRA, ROOT, Plan, Terraform
from tinyworkflow_core import App, create_app
from tinyworkflow_core.http.settings import HttpSettings

TARGETS = {"api", "approvals", "hooks", "tick", "ui", "worker"}
VARIABLE = re.compile(r"TINYWORKFLOW_[A-Z_]*[A-Z]")


def test_the_files_are_formatted(terraform: Terraform) -> None:
    done = terraform.run("fmt", "-check", "-diff", "-no-color")
    assert done.returncode == 0, done.stdout


def test_every_argument_reference_and_type_is_right(terraform: Terraform) -> None:
    done = terraform.run("validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


# In things that nothing else is made from: what depends on a fault is not looked at any more.
FAULTS = [
    (
        "threshold_value = var.alert_queue_depth",
        "treshold_value = 1",
        'An argument named "treshold_value" is not expected',
    ),
    ("oidc_token {", "oidc_tokens {", 'Blocks of type "oidc_tokens" are not expected here'),
    ('retention = "${var.backup_days * 86400}s"', "", 'The argument "retention" is required'),
    ("threshold_value = 5", 'threshold_value = "many"', "a number is required"),
    (
        "service[each.value[1]].member",
        "servces[each.value[1]].member",
        '"google_service_account" "servces" has not been',
    ),
    (
        "value       = local.urls\n",
        "value       = local.url\n",
        'A local value with the name "url" has not been declared',
    ),
    ("var.alert_queue_delay_seconds * 1000", "var.delay", 'input variable with the name "delay" has not been declared'),
]


def test_a_misspelt_or_missing_argument_and_a_dangling_reference_are_found(
    terraform: Terraform, tmp_path: Path
) -> None:
    for file in INFRA.glob("*.tf"):
        shutil.copy(file, tmp_path)
    for right, wrong, _ in FAULTS:
        [file] = [one for one in tmp_path.glob("*.tf") if right in one.read_text()]
        file.write_text(file.read_text().replace(right, wrong))
    done = terraform.run("validate", "-no-color", folder=tmp_path)
    assert done.returncode != 0
    said = _one_line(done.stdout + done.stderr)
    assert [expected for _, _, expected in FAULTS if expected not in said] == [], said


def test_values_that_could_not_be_deployed_are_refused_by_name(terraform: Terraform, tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "project": "My Project",
        "region": "us",
        "name": "a-name-that-is-too-long",
        "source_archive": "source.tar",
        "runtime": "python310",
        "api_invokers": ["allUsers"],
        "webhook_secrets": ["TINYWORKFLOW_LINK_KEYS"],
        "activity_secrets": ["slack-token"],
        "secret_versions": {"SLACK_TOKEN": "first"},
        "public_url": "http://example.com/",
        "max_instances": {"worker": 5},
        "worker_concurrency": 0,
        "worker_memory": "512",
        "worker_timeout_seconds": 3600,
        "lease": "30",
        "tick_schedule": "@hourly",
        "database": "Default",
        "collection": "a/b",
        "filtered_attributes": ["a`b"],
        "backup_days": 400,
        "alert_email": "nobody",
        "alert_queue_depth": 0,
        "alert_queue_delay_seconds": 0,
    }
    done = terraform.try_to_plan(wrong, tmp_path / "plan")
    assert done.returncode != 0
    said = _one_line(done.stdout + done.stderr)
    assert [name for name in wrong if f"The {name} must" not in said and f"Each of {name} must" not in said] == []


def _one_line(text: str) -> str:
    return " ".join(re.sub("[│╷╵]", " ", text).split())


def test_every_variable_and_output_is_described_and_the_example_names_only_variables() -> None:
    variables = re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', (INFRA / "variables.tf").read_text(), re.S | re.M)
    outputs = re.findall(r'^output "(\w+)" \{\n(.*?)^\}', (INFRA / "outputs.tf").read_text(), re.S | re.M)
    assert [name for name, body in [*variables, *outputs] if "  description = " not in body] == []
    checked = [name for name, body in variables if "validation {" in body or re.search(r"type += bool", body)]
    assert checked == [name for name, _ in variables]
    used = "".join(file.read_text() for file in INFRA.glob("*.tf") if file.name != "variables.tf")
    assert [name for name, _ in variables if f"var.{name}" not in used] == []
    example = re.findall(r"^(\w+) +=", (INFRA / "terraform.tfvars.example").read_text(), re.M)
    assert set(example) <= {name for name, _ in variables}


# --- services --------------------------------------------------------------------------------------------


def test_every_target_of_the_functions_is_a_service_of_its_own(plan: Plan) -> None:
    declared = ast.parse((ROOT / "functions/main.py").read_text()).body
    targets = {one.name for one in declared if isinstance(one, ast.AsyncFunctionDef)}
    functions = {one.key: one.values for one in plan.all("google_cloudfunctions2_function")}
    assert functions.keys() == TARGETS == targets - {"app"}
    for target, values in functions.items():
        [build], [service] = values["build_config"], values["service_config"]
        assert build["entry_point"] == target
        assert build["environment_variables"] == {"GOOGLE_FUNCTION_SOURCE": "functions/main.py"}
        assert service["max_instance_count"] >= 1
        assert service["min_instance_count"] == 0
        internal = service["ingress_settings"] == "ALLOW_INTERNAL_ONLY"
        assert internal == (target in ("tick", "worker"))


def test_services_queues_and_scheduler_name_each_other_rightly(plan: Plan) -> None:
    region = "us-central1"
    names = {one.key: one.values["name"] for one in plan.all("google_cloudfunctions2_function")}
    urls = {target: f"https://{name}-{PROJECT_NUMBER}.{region}.run.app" for target, name in names.items()}
    callers = {one.key: one.values["email"] for one in plan.all("google_service_account") if one.key not in names}
    queues = {
        one.key: f"projects/{GIVEN['project']}/locations/{one.values['location']}/queues/{one.values['name']}"
        for one in plan.all("google_cloud_tasks_queue")
    }
    environments = plan.environments()
    for environment in environments.values():
        assert environment["TINYWORKFLOW_WORKER_URL"] == urls["worker"]
        assert environment["TINYWORKFLOW_PUBLIC_URL"] == urls["approvals"]
        assert environment["TINYWORKFLOW_INVOKER"] == callers["tasks"]
        assert environment["TINYWORKFLOW_QUEUE"] == queues["advance"]
        assert environment["TINYWORKFLOW_ACTIVITY_QUEUE"] == queues["activity"]
    [job] = [one.values for one in plan.all("google_cloud_scheduler_job")]
    [target] = job["http_target"]
    assert (target["http_method"], target["uri"]) == ("POST", urls["tick"] + "/internal/tick")
    assert target["oidc_token"] == [{"service_account_email": callers["scheduler"], "audience": urls["tick"]}]
    for service, caller in (("worker", "tasks"), ("tick", "scheduler")):
        assert environments[service]["TINYWORKFLOW_AUDIENCE"] == urls[service]
        assert environments[service]["TINYWORKFLOW_INVOKERS"] == callers[caller]
        assert environments[service]["TINYWORKFLOW_IAM_IN_FRONT"] == "true"
    for public in TARGETS - {"worker", "tick"}:  # a token there has been checked by nobody
        assert "TINYWORKFLOW_IAM_IN_FRONT" not in environments[public]
    assert plan.outputs["urls"] == urls


async def test_the_code_takes_the_environment_that_each_service_is_given(plan: Plan) -> None:
    for target, environment in plan.environments().items():
        key = base64.b64encode(bytes(32)).decode()
        mounted = dict.fromkeys((name for name, value in environment.items() if value.startswith("tinyworkflow-")), key)
        invoker = {"TINYWORKFLOW_INVOKERS", "TINYWORKFLOW_INVOKER"} & environment.keys()
        filled = environment | mounted | {name: environment[name] for name in invoker}
        app = App.from_env(filled)
        create_app(app, parts=[target], settings=HttpSettings.from_env(filled))
        await app.close()


def test_what_infra_sets_is_read_and_what_it_does_not_set_is_said() -> None:
    read = {name for file in (ROOT / "tinyworkflow_core").rglob("*.py") for name in VARIABLE.findall(file.read_text())}
    files = [*INFRA.glob("*.tf"), *INFRA.glob("*.sh")]
    named = {name for file in files for name in VARIABLE.findall(file.read_text())}
    assert named - read == set(), "nobody reads these"
    told = set(VARIABLE.findall((ROOT / "docs/deploy.md").read_text()))
    assert told - read == set(), "docs/deploy.md names what nobody reads"
    assert read - told == set(), "docs/deploy.md has to say who gets these, or why nobody does"


# --- rights ----------------------------------------------------------------------------------------------


def test_each_account_may_do_what_it_needs_and_nothing_else(plan: Plan) -> None:
    accounts = {one.values["member"]: one.key for one in plan.all("google_service_account")}

    def who(member: str) -> str:
        return accounts.get(member, member)

    assert set(accounts.values()) == TARGETS | {"tasks", "scheduler", "build"}
    calling = [one.values for one in plan.all("google_cloud_run_v2_service_iam_member")]
    assert {one["role"] for one in calling} == {"roles/run.invoker"}
    assert {(one["name"], who(one["member"])) for one in calling} == {
        ("tinyworkflow-api", "group:developers@example.com"),
        ("tinyworkflow-approvals", "allUsers"),
        ("tinyworkflow-hooks", "allUsers"),
        ("tinyworkflow-tick", "scheduler"),
        ("tinyworkflow-ui", "allUsers"),
        ("tinyworkflow-worker", "tasks"),
    }
    project = {(who(one.values["member"]), one.values["role"]) for one in plan.all("google_project_iam_member")}
    assert project == {(one, "roles/datastore.user") for one in TARGETS} | {
        ("build", "roles/cloudbuild.builds.builder")
    }
    for one in plan.all("google_project_iam_member"):
        if one.values["role"] == "roles/datastore.user":
            [condition] = one.values["condition"]
            assert condition["expression"] == 'resource.name == "projects/my-project-123/databases/tinyworkflow"'
    enqueue = {
        (one.values["name"], who(one.values["member"]), one.values["role"])
        for one in plan.all("google_cloud_tasks_queue_iam_member")
    }
    queues = ("tinyworkflow-advance", "tinyworkflow-activity")
    assert enqueue == {(queue, one, "roles/cloudtasks.enqueuer") for queue in queues for one in TARGETS}
    acting = {
        (one.values["service_account_id"].rsplit("/")[-1].split("@")[0], who(one.values["member"]), one.values["role"])
        for one in plan.all("google_service_account_iam_member")
    }
    assert acting == {("tinyworkflow-tasks", one, "roles/iam.serviceAccountUser") for one in TARGETS}


def test_each_secret_is_read_by_those_who_have_it_in_their_environment_and_by_nobody_else(plan: Plan) -> None:
    accounts = {one.values["member"]: one.key for one in plan.all("google_service_account")}
    members = list(plan.all("google_secret_manager_secret_iam_member"))
    assert {one.values["role"] for one in members} == {"roles/secretmanager.secretAccessor"}
    readers = {(accounts[one.values["member"]], one.values["secret_id"]) for one in members}
    mounted = {
        (function.key, secret["secret"]): (secret["key"], secret["version"])
        for function in plan.all("google_cloudfunctions2_function")
        for secret in function.values["service_config"][0]["secret_environment_variables"]
    }
    assert readers == mounted.keys()
    assert {one.values["secret_id"] for one in plan.all("google_secret_manager_secret")} == {id for _, id in mounted}
    got = {target: {name for (who, _), (name, _) in mounted.items() if who == target} for target in TARGETS}
    sealed = {"TINYWORKFLOW_ENCRYPTION_KEYS"}
    assert got == {
        "api": sealed | {"TINYWORKFLOW_API_KEYS"},
        "approvals": sealed | {"TINYWORKFLOW_API_KEYS", "TINYWORKFLOW_LINK_KEYS"},
        "hooks": sealed | {"GITHUB_WEBHOOK_SECRET", "SHARED_SECRET"},
        "tick": sealed,
        "ui": sealed | {"TINYWORKFLOW_API_KEYS", "TINYWORKFLOW_LINK_KEYS"},
        "worker": sealed | {"TINYWORKFLOW_LINK_KEYS", "SLACK_TOKEN", "SHARED_SECRET"},
    }
    assert mounted["worker", "tinyworkflow-slack-token"] == ("SLACK_TOKEN", "3")
    assert mounted["hooks", "tinyworkflow-github-webhook-secret"] == ("GITHUB_WEBHOOK_SECRET", "latest")


def test_somebody_is_told_when_ticks_stop_queues_stand_still_or_services_fail(plan: Plan) -> None:
    alerts = list(plan.all("google_monitoring_alert_policy"))
    filters = [
        watched[0]["filter"]
        for one in alerts
        for condition in one.values["conditions"]
        if (watched := condition["condition_absent"] or condition["condition_threshold"])
    ]
    assert len(filters) == len(alerts) == 3 + len(TARGETS)
    for target in TARGETS:
        assert any("5xx" in one and f'"tinyworkflow-{target}"' in one for one in filters)
    assert any("2xx" in one and '"tinyworkflow-tick"' in one for one in filters)
    for metric in ("queue/depth", "queue/task_attempt_delays"):
        assert any(metric in one and 'starts_with("tinyworkflow-")' in one for one in filters)


def test_callers_are_known_by_an_access_document_where_there_is_one(terraform: Terraform) -> None:
    plan = terraform.plan({"project": "my-project-123", "access": True})
    for target in ("api", "approvals"):
        environment = plan.environments()[target]
        assert "TINYWORKFLOW_ACCESS" in environment
        assert "TINYWORKFLOW_API_KEYS" not in environment
    assert list(plan.all("google_monitoring_notification_channel")) == []
