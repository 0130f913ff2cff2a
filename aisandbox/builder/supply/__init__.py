"""What an image is made of, and the proof of it: inventory, SBOMs, licences, checksums, signatures, provenance."""
