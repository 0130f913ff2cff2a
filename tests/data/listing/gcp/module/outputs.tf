locals {
  address = google_compute_instance.instance.network_interface[0].access_config[0].nat_ip
}

output "instance_self_link" {
  description = "The instance."
  value       = google_compute_instance.instance.self_link
}

output "chat_url" {
  description = "Chat page (Open WebUI)"
  value       = "http://${local.address}:3000"
}

output "api_url" {
  description = "OpenAI-compatible API (vLLM)"
  value       = "http://${local.address}:8000/v1"
}

output "ssh" {
  description = "How to log in."
  value       = "gcloud compute ssh ${google_compute_instance.instance.name} --project ${var.project_id} --zone ${var.zone}"
}
