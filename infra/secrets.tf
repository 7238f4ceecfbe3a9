# Terraform makes the secrets and says who may read them. Their values never pass through it, or they would stand in its
# state: docs/deploy.md puts them in.
locals {
  # Environment variable -> the services that get it.
  secrets = merge(
    { (var.access ? "TINYWORKFLOW_ACCESS" : "TINYWORKFLOW_API_KEYS") = ["api", "approvals", "ui"] },
    { TINYWORKFLOW_LINK_KEYS = ["approvals", "ui", "worker"] }, # activities sign links, the page checks them; the dashboard signs sessions
    var.encryption ? { TINYWORKFLOW_ENCRYPTION_KEYS = local.targets } : {},
    { for name in setsubtract(var.webhook_secrets, var.activity_secrets) : name => ["hooks"] },
    { for name in setsubtract(var.activity_secrets, var.webhook_secrets) : name => ["worker"] },
    { for name in setintersection(var.activity_secrets, var.webhook_secrets) : name => ["hooks", "worker"] },
  )

  secret_ids = {
    for variable, services in local.secrets :
    variable => "${var.name}-${lower(replace(trimprefix(variable, "TINYWORKFLOW_"), "_", "-"))}"
  }

  readers = merge([
    for variable, services in local.secrets : {
      for target in services : "${target}/${variable}" => { target = target, variable = variable }
    }
  ]...)
}

resource "google_secret_manager_secret" "this" {
  for_each = local.secret_ids

  project   = var.project
  secret_id = each.value

  replication {
    auto {}
  }

  depends_on = [google_project_service.this]
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = local.readers

  project   = var.project
  secret_id = google_secret_manager_secret.this[each.value.variable].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.service[each.value.target].member
}
