"""The in-process backend: any causal language model of transformers."""
