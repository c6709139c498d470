"""Talking to a model: a small protocol (:mod:`dereason.lm.base`) and two backends, our engine and vLLM."""
