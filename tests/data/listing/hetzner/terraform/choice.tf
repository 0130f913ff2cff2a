locals {
  choice = {
    model         = var.model
    revision      = var.revision
    hf_token      = var.hf_token
    served_name   = var.served_name
    max_model_len = var.max_model_len
    quantization  = var.quantization
    vllm_args     = var.vllm_args
    api_key       = var.api_key
    chat_email    = var.chat_email
    chat_password = var.chat_password
    allowed_cidrs = var.allowed_cidrs
    domain        = var.domain
    tls_email     = var.tls_email
    host_names    = var.host_names
    sandbox       = var.sandbox
    data_volume   = var.data_volume
    hub_endpoint  = var.hub_endpoint
  }
  chosen = { for key, value in local.choice : key => value if value != "" }
  # JSON is YAML, and quotes every value.
  user_data = "#cloud-config\n${jsonencode({ aisandbox = local.chosen })}\n"
}
