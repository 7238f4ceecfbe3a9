output "urls" {
  description = "Where each service is reached. worker and tick answer only to the platform."
  value       = local.urls
}

output "hooks_url" {
  description = "What a sender of webhooks is given, with the webhook's name behind it."
  value       = "${local.urls["hooks"]}/hooks/"
}

output "database_url" {
  description = "TINYWORKFLOW_DATABASE_URL, for the command line."
  value       = local.environment.TINYWORKFLOW_DATABASE_URL
}

output "secret_ids" {
  description = "Environment variable -> the secret in Secret Manager that needs a value before the services are made."
  value       = local.secret_ids
}

output "service_accounts" {
  description = "What each service runs as: grant it what its activities need elsewhere."
  value       = { for target, account in google_service_account.service : target => account.email }
}
