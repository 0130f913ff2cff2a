"""Who may come in: addresses, certificate, the chat's account."""
