"""One module for each platform: from the manifest to the files that are its own."""
