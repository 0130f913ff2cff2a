terraform {
  required_version = ">= 1.3"
  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.48"
    }
  }
}

# The access token is read from HCLOUD_TOKEN.
provider "hcloud" {}

variable "image" {
  description = "Number of the snapshot."
  type        = string
}

variable "location" {
  description = "Location of the server."
  type        = string
  default     = "nbg1"
}

variable "server_type" {
  description = "Type of the server."
  type        = string
}

variable "ssh_key" {
  description = "Name of your SSH key at Hetzner."
  type        = string
}

variable "source_ips" {
  description = "Networks that may reach the server."
  type        = list(string)
  default     = ["0.0.0.0/0", "::/0"]
}

resource "hcloud_firewall" "instance" {
  name = "aisandbox"

  # SSH
  rule {
    direction  = "in"
    protocol   = "tcp"
    port       = "22"
    source_ips = var.source_ips
  }

  # Chat page (Open WebUI)
  rule {
    direction  = "in"
    protocol   = "tcp"
    port       = "3000"
    source_ips = var.source_ips
  }

  # OpenAI-compatible API (vLLM)
  rule {
    direction  = "in"
    protocol   = "tcp"
    port       = "8000"
    source_ips = var.source_ips
  }

  # Sandbox
  dynamic "rule" {
    for_each = var.sandbox == "public" ? [1] : []
    content {
      direction  = "in"
      protocol   = "tcp"
      port       = "8080"
      source_ips = var.source_ips
    }
  }

  # Redirect to HTTPS; open while a domain is set
  dynamic "rule" {
    for_each = var.domain != "" ? [1] : []
    content {
      direction  = "in"
      protocol   = "tcp"
      port       = "80"
      source_ips = ["0.0.0.0/0", "::/0"]
    }
  }

  # Chat page and API by HTTPS; open while a domain is set
  dynamic "rule" {
    for_each = var.domain != "" ? [1] : []
    content {
      direction  = "in"
      protocol   = "tcp"
      port       = "443"
      source_ips = var.source_ips
    }
  }
}

resource "hcloud_server" "instance" {
  name         = "aisandbox"
  image        = var.image
  location     = var.location
  server_type  = var.server_type
  ssh_keys     = [var.ssh_key]
  firewall_ids = [hcloud_firewall.instance.id]
  user_data    = local.user_data
}

output "chat_url" {
  value = "http://${hcloud_server.instance.ipv4_address}:3000"
}

output "api_url" {
  value = "http://${hcloud_server.instance.ipv4_address}:8000/v1"
}
