"""Who may call: hosts, origins, tokens, tickets."""
