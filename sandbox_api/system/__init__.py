"""What this sandbox is, what works in it now, what it uses, and what it runs when it ends."""
