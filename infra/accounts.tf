# One account for each service, one for each caller, one for the builds. None has a role of the project's own.

resource "google_service_account" "service" {
  for_each = local.service_names

  project      = var.project
  account_id   = each.value
  display_name = "TinyWorkflow: what the service ${each.key} runs as"
}

resource "google_service_account" "caller" {
  for_each = { tasks = "the queues call the worker as", scheduler = "the scheduler calls the tick as" }

  project      = var.project
  account_id   = "${var.name}-${each.key}"
  display_name = "TinyWorkflow: what ${each.value}"
}

resource "google_service_account" "build" {
  project      = var.project
  account_id   = "${var.name}-build"
  display_name = "TinyWorkflow: what the services are built as"
}

# --- what services may do --------------------------------------------------------------------------------

resource "google_project_iam_member" "data" {
  for_each = google_service_account.service

  project = var.project
  role    = "roles/datastore.user"
  member  = each.value.member

  condition {
    title       = "${var.name}-database"
    description = "This database and no other of the project"
    expression  = "resource.name == \"projects/${var.project}/databases/${var.database}\""
  }
}

resource "google_cloud_tasks_queue_iam_member" "enqueue" {
  for_each = { for pair in setproduct(keys(local.queue_names), local.targets) : "${pair[0]}/${pair[1]}" => pair }

  project  = var.project
  location = var.region
  name     = google_cloud_tasks_queue.this[each.value[0]].name
  role     = "roles/cloudtasks.enqueuer"
  member   = google_service_account.service[each.value[1]].member
}

# Who makes a task that carries a token of an account must be allowed to act as that account.
resource "google_service_account_iam_member" "task_token" {
  for_each = google_service_account.service

  service_account_id = google_service_account.caller["tasks"].name
  role               = "roles/iam.serviceAccountUser"
  member             = each.value.member
}

# --- who may call services -------------------------------------------------------------------------------

resource "google_cloud_run_v2_service_iam_member" "public" {
  for_each = toset(local.public)

  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.this[each.key].name
  role     = "roles/run.invoker"
  member   = "allUsers"
}

resource "google_cloud_run_v2_service_iam_member" "platform" {
  for_each = { worker = "tasks", tick = "scheduler" }

  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.this[each.key].name
  role     = "roles/run.invoker"
  member   = google_service_account.caller[each.value].member
}

resource "google_cloud_run_v2_service_iam_member" "api" {
  for_each = toset(var.api_invokers)

  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.this["api"].name
  role     = "roles/run.invoker"
  member   = each.key
}

# --- building --------------------------------------------------------------------------------------------

resource "google_project_iam_member" "build" {
  project = var.project
  role    = "roles/cloudbuild.builds.builder"
  member  = google_service_account.build.member
}
