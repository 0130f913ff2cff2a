"""What the chat page puts before a question about documents; the guide is taught with the same words."""

TEMPLATE = (
    "Parts of documents, each with its number:\n{{CONTEXT}}\n"
    "Answer the question from these parts and name the number of each part that you use, as in [1]. "
    "If they do not hold the answer, say so."
)
"""Open WebUI's RAG_TEMPLATE."""
