"""Talking to a model: one small protocol (:mod:`dereason.lm.base`), one backend so far (:mod:`dereason.lm.local`)."""
