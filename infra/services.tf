# One source, one service for each target of functions/main.py.
locals {
  environment = {
    TINYWORKFLOW_DATABASE_URL   = "firestore://${var.project}/${var.database}?collection=${var.collection}"
    TINYWORKFLOW_DISPATCHER     = "cloud-tasks"
    TINYWORKFLOW_QUEUE          = local.queue_paths["advance"]
    TINYWORKFLOW_ACTIVITY_QUEUE = local.queue_paths["activity"]
    TINYWORKFLOW_WORKER_URL     = local.urls["worker"]
    TINYWORKFLOW_INVOKER        = google_service_account.caller["tasks"].email
    TINYWORKFLOW_PUBLIC_URL     = var.public_url == "" ? local.urls["approvals"] : var.public_url
    TINYWORKFLOW_LEASE          = var.lease
  }

  # Who else tells a service what it is: the two that the platform calls. Cloud Run has checked a token before such a
  # service sees it, and takes its signature off.
  own_environment = {
    worker = {
      TINYWORKFLOW_REQUEST_TIMEOUT = "${var.worker_timeout_seconds - 60}s" # lets go by itself, before it is cut off
      TINYWORKFLOW_AUDIENCE        = local.urls["worker"]
      TINYWORKFLOW_INVOKERS        = google_service_account.caller["tasks"].email
      TINYWORKFLOW_IAM_IN_FRONT    = "true"
    }
    tick = {
      TINYWORKFLOW_AUDIENCE     = local.urls["tick"]
      TINYWORKFLOW_INVOKERS     = google_service_account.caller["scheduler"].email
      TINYWORKFLOW_IAM_IN_FRONT = "true"
    }
  }

  sizes = {
    api       = { memory = "512Mi", concurrency = 40, timeout = 90 } # Prefer: wait=60 holds an answer for so long
    approvals = { memory = "512Mi", concurrency = 40, timeout = 60 }
    hooks     = { memory = "512Mi", concurrency = 40, timeout = 60 }
    tick      = { memory = "512Mi", concurrency = 1, timeout = 60 }
    ui        = { memory = "512Mi", concurrency = 40, timeout = 60 }
    worker    = { memory = var.worker_memory, concurrency = var.worker_concurrency, timeout = var.worker_timeout_seconds }
  }
}

resource "google_storage_bucket" "source" {
  project                     = var.project
  name                        = "${var.project}-${var.name}-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # it holds what the repository holds
}

resource "google_storage_bucket_object" "source" {
  bucket = google_storage_bucket.source.name
  name   = "source-${filemd5(var.source_archive)}.zip"
  source = var.source_archive
}

resource "google_cloudfunctions2_function" "this" {
  for_each = local.service_names

  project     = var.project
  location    = var.region
  name        = each.value
  description = "TinyWorkflow: the target ${each.key} of functions/main.py"

  build_config {
    runtime         = var.runtime
    entry_point     = each.key
    service_account = google_service_account.build.id

    environment_variables = {
      GOOGLE_FUNCTION_SOURCE = "functions/main.py"
    }

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.service[each.key].email
    ingress_settings                 = contains(["tick", "worker"], each.key) ? "ALLOW_INTERNAL_ONLY" : "ALLOW_ALL"
    available_cpu                    = "1" # what serving several requests at a time asks for
    available_memory                 = local.sizes[each.key].memory
    max_instance_request_concurrency = local.sizes[each.key].concurrency
    timeout_seconds                  = local.sizes[each.key].timeout
    min_instance_count               = 0
    max_instance_count               = var.max_instances[each.key]
    environment_variables            = merge(local.environment, lookup(local.own_environment, each.key, {}))

    dynamic "secret_environment_variables" {
      for_each = { for variable, services in local.secrets : variable => services if contains(services, each.key) }

      content {
        key        = secret_environment_variables.key
        project_id = var.project
        secret     = google_secret_manager_secret.this[secret_environment_variables.key].secret_id
        version    = lookup(var.secret_versions, secret_environment_variables.key, "latest")
      }
    }
  }

  depends_on = [
    google_firestore_database.this,
    google_project_iam_member.build,
    google_project_service.this,
    google_secret_manager_secret_iam_member.reader,
  ]
}
