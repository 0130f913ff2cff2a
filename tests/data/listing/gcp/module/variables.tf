# Required by Marketplace.

variable "project_id" {
  description = "Project in which the instance is made."
  type        = string
}

variable "goog_cm_deployment_name" {
  description = "Name of the deployment and of the instance."
  type        = string

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,49}[a-z0-9])?$", var.goog_cm_deployment_name))
    error_message = "Use small letters, digits and dashes: at most 51, a letter first."
  }
}

variable "source_image" {
  description = "Image of the product."
  type        = string
  default     = "projects/VENDOR-PROJECT/global/images/aisandbox-0-1-0"
}

# The machine.

variable "zone" {
  description = "Zone that has the machine type."
  type        = string
  default     = "us-central1-a"
}

variable "machine_type" {
  description = "Machine type, with the GPUs that it brings."
  type        = string
  default     = "g2-standard-8"
}

variable "boot_disk_type" {
  description = "Type of the boot disk."
  type        = string
  default     = "pd-balanced"
}

variable "boot_disk_size" {
  description = "Size of the boot disk in GB, with room for the models."
  type        = number
  default     = 200

  validation {
    condition     = var.boot_disk_size >= 64
    error_message = "The image needs 64 GB."
  }
}

variable "network" {
  description = "Network of the instance."
  type        = string
  default     = "default"
}

variable "source_ranges" {
  description = "Networks that may reach the instance, separated by commas."
  type        = string
  default     = "0.0.0.0/0"
}

# Choices of the product. None is required; what is empty is decided by the appliance, which also checks every value.

variable "model" {
  description = "Hugging Face model to serve, as ORGANISATION/NAME. Empty picks the best listed model for the GPU found."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", var.model))
    error_message = "This does not fit: Model. Example: Qwen/Qwen3-8B."
  }
}

variable "revision" {
  description = "Branch, tag or commit of the model. Empty takes the pinned revision of a listed model, else main."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$", var.revision))
    error_message = "This does not fit: Model revision. Example: main."
  }
}

variable "hf_token" {
  description = "Needed only for gated or private models. Anybody on the instance can read plain user-data, so prefer a read-only token."
  type        = string
  default     = ""
  sensitive   = true

  validation {
    condition     = can(regex("^$|^hf_[A-Za-z0-9]{8,128}$", var.hf_token))
    error_message = "This does not fit: Hugging Face access token."
  }
}

variable "served_name" {
  description = "Model name that API clients use. Empty uses the Hugging Face name."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$", var.served_name))
    error_message = "This does not fit: Name in the API. Example: my-model."
  }
}

variable "max_model_len" {
  description = "Context length in tokens. Empty takes what fits the GPU."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[0-9]{0,9}$", var.max_model_len))
    error_message = "This does not fit: Context length. Example: 32768."
  }
}

variable "quantization" {
  description = "Compress the weights while loading, for a model that is published without quantization. Empty takes the model as published."
  type        = string
  default     = ""

  validation {
    condition     = contains(["", "fp8"], var.quantization)
    error_message = "Give one of fp8."
  }
}

variable "vllm_args" {
  description = "Arguments for vLLM's server, from the list of those that are safe to change."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[ -~]*$", var.vllm_args))
    error_message = "This does not fit: Further vLLM arguments. Example: --max-num-seqs 64 --enable-prefix-caching."
  }
}

variable "api_key" {
  description = "Clients of the API must send this key (Authorization, Bearer). Empty leaves the API open to everyone who can reach it."
  type        = string
  default     = ""
  sensitive   = true

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9._~-]{16,128}$", var.api_key))
    error_message = "This does not fit: API key."
  }
}

variable "chat_email" {
  description = "E-mail address to sign in to the chat page with. Used together with the password."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}$", var.chat_email))
    error_message = "This does not fit: Login of the chat page. Example: me@example.com."
  }
}

variable "chat_password" {
  description = "The chat page asks for a login with this password, and has the sandbox's terminal and tools. Empty leaves it open, without them."
  type        = string
  default     = ""
  sensitive   = true

  validation {
    condition     = can(regex("^$|^[!-~]{10,72}$", var.chat_password))
    error_message = "This does not fit: Password of the chat page."
  }
}

variable "allowed_cidrs" {
  description = "Networks that may reach chat, API and sandbox, separated by commas. Empty allows all; the chat then has a sandbox only with a password. Not for SSH."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[0-9A-Fa-f:./, ]*$", var.allowed_cidrs))
    error_message = "This does not fit: Allowed addresses. Example: 203.0.113.7, 2001:db8::/48."
  }
}

variable "domain" {
  description = "Name that points at this instance. Chat and API are then served by HTTPS with a certificate that renews itself."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^$|^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z][a-z0-9-]{0,61}[a-z]$", var.domain))
    error_message = "This does not fit: Domain. Example: ai.example.com."
  }
}

variable "tls_email" {
  description = "Address that the certificate authority may write to. Used together with the domain; may stay empty."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}$", var.tls_email))
    error_message = "This does not fit: E-mail for certificates. Example: me@example.com."
  }
}

variable "host_names" {
  description = "Names that chat and API answer to besides the domain, separated by commas, such as a proxy's. Addresses and localhost need none."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[A-Za-z0-9._*, -]*$", var.host_names))
    error_message = "This does not fit: Further host names. Example: ai.example.com, *.example.org."
  }
}

variable "sandbox" {
  description = "local is reached by SSH tunnel, and by a chat with a password or allowed addresses; public also opens its port and asks for a key; off runs none."
  type        = string
  default     = "local"

  validation {
    condition     = contains(["off", "local", "public"], var.sandbox)
    error_message = "Give one of off, local, public."
  }
}

variable "data_volume" {
  description = "Block device that keeps models and chats beyond this instance. It must hold an ext4 or xfs file system, and is never formatted."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^$|^(/dev/[A-Za-z0-9._/-]{1,100}|(LABEL|UUID)=[A-Za-z0-9._-]{1,64})$", var.data_volume))
    error_message = "This does not fit: Data volume. Example: /dev/disk/by-id/scsi-0DO_Volume_data."
  }
}

variable "hub_endpoint" {
  description = "Another server that speaks the Hugging Face protocol, such as a mirror inside your network."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^$|^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$", var.hub_endpoint))
    error_message = "This does not fit: Model hub address. Example: https://huggingface.co."
  }
}
