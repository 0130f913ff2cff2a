"""Teach a small language model: conversations in, a LoRA adapter out, and rules by which its answers are judged."""
