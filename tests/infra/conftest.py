from __future__ import annotations

import pytest

from tests.infra.terraform import Plan, Terraform, TerraformMissing
from tests.services import do_without

GIVEN = {
    "project": "my-project-123",
    "api_invokers": ["group:developers@example.com"],
    "webhook_secrets": ["GITHUB_WEBHOOK_SECRET", "SHARED_SECRET"],
    "activity_secrets": ["SLACK_TOKEN", "SHARED_SECRET"],
    "filtered_attributes": ["customer"],
    "secret_versions": {"SLACK_TOKEN": "3"},
    "encryption": True,
    "alert_email": "ops@example.com",
}
"""What a deployment that uses everything says."""


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    try:
        return Terraform(tmp_path_factory.mktemp("terraform"))
    except TerraformMissing as reason:
        do_without(reason)


@pytest.fixture(scope="session")
def plan(terraform: Terraform) -> Plan:
    """What would be made for GIVEN."""
    return terraform.plan(GIVEN)
