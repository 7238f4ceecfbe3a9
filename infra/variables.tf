variable "project" {
  description = "The id of the Google Cloud project. It exists already and has billing."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "The project must be a project id (6 to 30 lower-case letters, digits and -), not its name or number."
  }
}

variable "region" {
  description = "Where services, queues, scheduler and database are. A database cannot be moved later."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "The region must be one region such as us-central1 or europe-west1."
  }
}

variable "name" {
  description = "What all names here begin with: services, queues, accounts, secrets. Two of them can share a project."
  type        = string
  default     = "tinyworkflow"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,14}[a-z0-9]$", var.name))
    error_message = "The name must have 2 to 16 lower-case letters, digits and -, begin with a letter and not end with -."
  }
}

variable "source_archive" {
  description = "The zip that infra/package.sh makes of what is deployed."
  type        = string
  default     = "../build/source.zip"

  validation {
    condition     = can(regex("[.]zip$", var.source_archive))
    error_message = "The source_archive must be a path to a .zip file; infra/package.sh makes it."
  }
}

variable "runtime" {
  description = "The Python of the services. Runs replay on the Python minor version that they began with."
  type        = string
  default     = "python313"

  validation {
    condition     = contains(["python311", "python312", "python313"], var.runtime)
    error_message = "The runtime must be python311, python312 or python313."
  }
}

# --- who may call ----------------------------------------------------------------------------------------

variable "api_invokers" {
  description = "Who may reach the private service api (IAM members, such as group:dev@example.com). A key is needed besides."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for member in var.api_invokers : can(regex("^(user|group|serviceAccount|domain|principal|principalSet):.+", member))
    ])
    error_message = "Each of api_invokers must be an IAM member such as user:ada@example.com; allUsers is not meant here."
  }
}

variable "access" {
  description = "Whether callers are known by an access document (TINYWORKFLOW_ACCESS) in place of plain keys."
  type        = bool
  default     = false
}

variable "encryption" {
  description = "Whether inputs, outputs and payloads are encrypted by keys in the secret for TINYWORKFLOW_ENCRYPTION_KEYS."
  type        = bool
  default     = false
}

variable "webhook_secrets" {
  description = "Environment variables with the secrets of the webhooks declared in code; the service hooks gets them."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for name in var.webhook_secrets : can(regex("^[A-Z][A-Z0-9_]*$", name)) && !can(regex("^TINYWORKFLOW_", name))
    ])
    error_message = "Each of webhook_secrets must be the name of an environment variable, such as GITHUB_WEBHOOK_SECRET."
  }
}

variable "activity_secrets" {
  description = "Environment variables with secrets that activities read; the service worker gets them, and nobody else."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for name in var.activity_secrets : can(regex("^[A-Z][A-Z0-9_]*$", name)) && !can(regex("^TINYWORKFLOW_", name))
    ])
    error_message = "Each of activity_secrets must be the name of an environment variable, such as SLACK_TOKEN."
  }
}

variable "secret_versions" {
  description = "Environment variable -> version of its secret. Those that are not named take the latest at their start."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for version in values(var.secret_versions) : can(regex("^([1-9][0-9]*|latest)$", version))])
    error_message = "The secret_versions must be numbers such as \"2\", or \"latest\"."
  }
}

variable "public_url" {
  description = "Where people reach the approvals service, when it has a domain of its own. Empty: its run.app address."
  type        = string
  default     = ""

  validation {
    condition     = var.public_url == "" || can(regex("^https://[^/?#@[:space:]]+$", var.public_url))
    error_message = "The public_url must be https://HOST, without a path and without / at its end."
  }
}

# --- size ------------------------------------------------------------------------------------------------

variable "max_instances" {
  description = "The most instances of each service: the bound of what an hour can cost."
  type        = map(number)
  default     = { api = 10, approvals = 5, hooks = 10, tick = 1, ui = 3, worker = 20 }

  validation {
    condition = (
      join(" ", sort(keys(var.max_instances))) == "api approvals hooks tick ui worker" &&
      alltrue([for number in values(var.max_instances) : number >= 1 && number <= 1000 && floor(number) == number])
    )
    error_message = "The max_instances must have a whole number from 1 to 1000 for each of api, approvals, hooks, tick, ui, worker."
  }
}

variable "worker_concurrency" {
  description = "How many runs and activities one worker instance works on at a time."
  type        = number
  default     = 20

  validation {
    condition     = var.worker_concurrency >= 1 && var.worker_concurrency <= 200
    error_message = "The worker_concurrency must be from 1 to 200."
  }
}

variable "worker_memory" {
  description = "Memory of one worker instance."
  type        = string
  default     = "512Mi"

  validation {
    condition     = can(regex("^[1-9][0-9]*(Mi|Gi)$", var.worker_memory))
    error_message = "The worker_memory must be such as 512Mi or 2Gi."
  }
}

variable "worker_timeout_seconds" {
  description = "The longest that one call of the worker may take. A run that needs longer goes on in the next call; an activity cannot."
  type        = number
  default     = 900

  validation {
    condition     = var.worker_timeout_seconds >= 120 && var.worker_timeout_seconds <= 1800
    error_message = "The worker_timeout_seconds must be from 120 to 1800: Cloud Tasks waits no longer than 30 minutes."
  }
}

variable "lease" {
  description = "How long a run stays with a worker that has died. Shorter: faster take-over, more writes."
  type        = string
  default     = "30s"

  validation {
    condition     = can(regex("^[1-9][0-9]*(s|m)$", var.lease))
    error_message = "The lease must be such as 30s or 2m."
  }
}

variable "tick_schedule" {
  description = "When Cloud Scheduler looks for what is due (cron, UTC). Schedules and repairs are as exact as this."
  type        = string
  default     = "* * * * *"

  validation {
    condition     = length(split(" ", var.tick_schedule)) == 5
    error_message = "The tick_schedule must be a cron line of five fields."
  }
}

# --- the database ----------------------------------------------------------------------------------------

variable "database" {
  description = "The name of the Firestore database that is made."
  type        = string
  default     = "tinyworkflow"

  validation {
    condition     = var.database == "(default)" || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.database))
    error_message = "The database must be (default), or 4 to 63 lower-case letters, digits and -, beginning with a letter."
  }
}

variable "collection" {
  description = "What the names of the collections begin with."
  type        = string
  default     = "tinyworkflow"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9_]{0,99}$", var.collection))
    error_message = "The collection must have 1 to 100 letters, digits and _, and begin with a letter."
  }
}

variable "filtered_attributes" {
  description = "The attributes of runs by which lists are filtered: each has an index of its own."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for key in var.filtered_attributes : can(regex("^[^`\\\\]+$", key))])
    error_message = "Each of filtered_attributes must be the key of an attribute, without backquotes and backslashes."
  }
}

variable "backup_days" {
  description = "How many days a daily backup of the database is kept; 0: no backups."
  type        = number
  default     = 7

  validation {
    condition     = var.backup_days >= 0 && var.backup_days <= 98
    error_message = "The backup_days must be from 0 to 98."
  }
}

variable "delete_protection" {
  description = "Whether the database is protected from being deleted, by Terraform too."
  type        = bool
  default     = true
}

# --- alerts ----------------------------------------------------------------------------------------------

variable "alert_email" {
  description = "Who is written to when something is wrong. Empty: alerts are only shown."
  type        = string
  default     = ""

  validation {
    condition     = var.alert_email == "" || can(regex("^[^@[:space:]]+@[^@[:space:]]+$", var.alert_email))
    error_message = "The alert_email must be an e-mail address."
  }
}

variable "alert_queue_depth" {
  description = "More tasks than this in a queue for ten minutes are an alert. Runs that sleep have a task each: set it above them."
  type        = number
  default     = 150000

  validation {
    condition     = var.alert_queue_depth >= 1
    error_message = "The alert_queue_depth must be at least 1."
  }
}

variable "alert_queue_delay_seconds" {
  description = "Tasks that start so much too late (95th percentile over ten minutes) are an alert."
  type        = number
  default     = 120

  validation {
    condition     = var.alert_queue_delay_seconds >= 1
    error_message = "The alert_queue_delay_seconds must be at least 1."
  }
}
