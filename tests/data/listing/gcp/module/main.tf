provider "google" {
  project = var.project_id
}

locals {
  source_ranges = [for range in split(",", var.source_ranges) : trimspace(range)]
}

resource "google_compute_instance" "instance" {
  name         = "${var.goog_cm_deployment_name}-vm"
  machine_type = var.machine_type
  zone         = var.zone
  tags         = ["${var.goog_cm_deployment_name}-vm"]

  boot_disk {
    initialize_params {
      image = var.source_image
      type  = var.boot_disk_type
      size  = var.boot_disk_size
    }
  }

  network_interface {
    network = var.network
    access_config {}
  }

  # The instance reads its choices from here, at every boot.
  metadata = { for key, value in local.chosen : "aisandbox-${key}" => value }

  # Machines with GPUs cannot move to another host.
  scheduling {
    on_host_maintenance = "TERMINATE"
    automatic_restart   = true
  }

  shielded_instance_config {
    enable_secure_boot = false # the driver's kernel modules are not signed
  }
}

resource "google_compute_firewall" "ssh" {
  name          = "${var.goog_cm_deployment_name}-ssh"
  description   = "SSH"
  network       = var.network
  source_ranges = local.source_ranges
  target_tags   = ["${var.goog_cm_deployment_name}-vm"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

resource "google_compute_firewall" "chat" {
  name          = "${var.goog_cm_deployment_name}-chat"
  description   = "Chat page (Open WebUI)"
  network       = var.network
  source_ranges = local.source_ranges
  target_tags   = ["${var.goog_cm_deployment_name}-vm"]

  allow {
    protocol = "tcp"
    ports    = ["3000"]
  }
}

resource "google_compute_firewall" "api" {
  name          = "${var.goog_cm_deployment_name}-api"
  description   = "OpenAI-compatible API (vLLM)"
  network       = var.network
  source_ranges = local.source_ranges
  target_tags   = ["${var.goog_cm_deployment_name}-vm"]

  allow {
    protocol = "tcp"
    ports    = ["8000"]
  }
}

resource "google_compute_firewall" "sandbox" {
  count         = var.sandbox == "public" ? 1 : 0
  name          = "${var.goog_cm_deployment_name}-sandbox"
  description   = "Sandbox"
  network       = var.network
  source_ranges = local.source_ranges
  target_tags   = ["${var.goog_cm_deployment_name}-vm"]

  allow {
    protocol = "tcp"
    ports    = ["8080"]
  }
}

resource "google_compute_firewall" "http" {
  count         = var.domain != "" ? 1 : 0
  name          = "${var.goog_cm_deployment_name}-http"
  description   = "Redirect to HTTPS; open while a domain is set"
  network       = var.network
  source_ranges = ["0.0.0.0/0"]
  target_tags   = ["${var.goog_cm_deployment_name}-vm"]

  allow {
    protocol = "tcp"
    ports    = ["80"]
  }
}

resource "google_compute_firewall" "https" {
  count         = var.domain != "" ? 1 : 0
  name          = "${var.goog_cm_deployment_name}-https"
  description   = "Chat page and API by HTTPS; open while a domain is set"
  network       = var.network
  source_ranges = local.source_ranges
  target_tags   = ["${var.goog_cm_deployment_name}-vm"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}
