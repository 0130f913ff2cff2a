"""The auxiliary service: search in documents and dictation, by small models loaded when first needed."""
