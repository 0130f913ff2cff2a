"""What the owner asked for: options from every source, checked, edited and applied."""
