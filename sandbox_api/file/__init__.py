"""Files: reading, writing, searching, editing, transfer and watching, all confined to the reachable folders."""
