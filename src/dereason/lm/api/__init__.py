"""The ``api`` backend: any OpenAI-compatible endpoint."""
