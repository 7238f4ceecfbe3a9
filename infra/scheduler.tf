resource "google_cloud_scheduler_job" "tick" {
  project          = var.project
  region           = var.region
  name             = "${var.name}-tick"
  description      = "Has everything looked at that is due: timers, schedules, runs whose worker died."
  schedule         = var.tick_schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = "60s"

  http_target {
    http_method = "POST"
    uri         = "${local.urls["tick"]}/internal/tick"

    oidc_token {
      service_account_email = google_service_account.caller["scheduler"].email
      audience              = local.urls["tick"]
    }
  }

  retry_config {
    retry_count = 0 # the next tick does what this one did not
  }

  depends_on = [google_project_service.this, google_cloudfunctions2_function.this]
}
