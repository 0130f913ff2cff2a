#!/bin/bash
# AI Sandbox 0.1.0 - A private AI on your own instance - chat page and OpenAI-compatible API, ready in minutes.
# It hands the fields of the form to the product, which is baked into the image that this script is meant for.
#
# <UDF name="model" label="Model - Hugging Face model to serve, as ORGANISATION/NAME. Empty picks the best listed model for the GPU found." default="" example="Qwen/Qwen3-8B" />
# <UDF name="revision" label="Model revision - Branch, tag or commit of the model. Empty takes the pinned revision of a listed model, else main." default="" example="main" />
# <UDF name="hf_token_password" label="Hugging Face access token - Needed only for gated or private models. Anybody on the instance can read plain user-data, so prefer a read-only token." default="" />
# <UDF name="served_name" label="Name in the API - Model name that API clients use. Empty uses the Hugging Face name." default="" example="my-model" />
# <UDF name="max_model_len" label="Context length - Context length in tokens. Empty takes what fits the GPU." default="" example="32768" />
# <UDF name="quantization" label="Quantization - Compress the weights while loading, for a model that is published without quantization. Empty takes the model as published." oneOf="default,fp8" default="default" />
# <UDF name="vllm_args" label="Further vLLM arguments - Arguments for vLLM's server, from the list of those that are safe to change." default="" example="--max-num-seqs 64 --enable-prefix-caching" />
# <UDF name="api_key_password" label="API key - Clients of the API must send this key (Authorization, Bearer). Empty leaves the API open to everyone who can reach it." default="" />
# <UDF name="chat_email" label="Login of the chat page - E-mail address to sign in to the chat page with. Used together with the password." default="" example="me@example.com" />
# <UDF name="chat_password" label="Password of the chat page - The chat page asks for a login with this password, and has the sandbox's terminal and tools. Empty leaves it open, without them." default="" />
# <UDF name="allowed_cidrs" label="Allowed addresses - Networks that may reach chat, API and sandbox, separated by commas. Empty allows all; the chat then has a sandbox only with a password. Not for SSH." default="" example="203.0.113.7, 2001:db8::/48" />
# <UDF name="domain" label="Domain - Name that points at this instance. Chat and API are then served by HTTPS with a certificate that renews itself." default="" example="ai.example.com" />
# <UDF name="tls_email" label="E-mail for certificates - Address that the certificate authority may write to. Used together with the domain; may stay empty." default="" example="me@example.com" />
# <UDF name="host_names" label="Further host names - Names that chat and API answer to besides the domain, separated by commas, such as a proxy's. Addresses and localhost need none." default="" example="ai.example.com, *.example.org" />
# <UDF name="sandbox" label="Sandbox - local is reached by SSH tunnel, and by a chat with a password or allowed addresses; public also opens its port and asks for a key; off runs none." oneOf="off,local,public" default="local" />
# <UDF name="data_volume" label="Data volume - Block device that keeps models and chats beyond this instance. It must hold an ext4 or xfs file system, and is never formatted." default="" example="/dev/disk/by-id/scsi-0DO_Volume_data" />
# <UDF name="hub_endpoint" label="Model hub address - Another server that speaks the Hugging Face protocol, such as a mirror inside your network." default="" example="https://huggingface.co" />
set -euo pipefail
umask 077

readonly COMMAND=/usr/local/bin/aisandbox
readonly FORM=/etc/aisandbox/udf.env
readonly QUOTE="'\\''"

fail() {
  printf 'aisandbox: %s\n' "$1" >&2
  exit 1
}

# Prints the line of one field: Akamai names its variable in capital letters. The value is data, never run: it is put
# into single quotes, on one line. What was left out makes no line.
field() {
  local upper=${1^^} value
  value=${!upper-${!1-}}
  value=${value//[$'\r\n']/ }
  if [ -n "$value" ] && [ "$value" != "default" ]; then
    printf "%s='%s'\n" "$upper" "${value//\'/"$QUOTE"}"
  fi
}

[ "$(id -u)" = 0 ] || fail "run this as root"
[ -x "$COMMAND" ] || fail "the image has no AI Sandbox: deploy this StackScript with the image that was made for it"

mkdir -p "${FORM%/*}"
written=$(mktemp "$FORM.XXXXXX")
trap 'rm -f "$written"' EXIT
{
  field model
  field revision
  field hf_token_password
  field served_name
  field max_model_len
  field quantization
  field vllm_args
  field api_key_password
  field chat_email
  field chat_password
  field allowed_cidrs
  field domain
  field tls_email
  field host_names
  field sandbox
  field data_volume
  field hub_endpoint
} >"$written"
mv "$written" "$FORM"
trap - EXIT

"$COMMAND" configure
echo "AI Sandbox is coming up: http://ADDRESS:3000 shows the progress, \`aisandbox status\` says what happens."
