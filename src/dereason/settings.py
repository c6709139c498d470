"""The base class of every settings model.

Fields are described by the string under them; ``dereason recipe explain`` prints those strings, and a test
refuses a field without one. Unknown keys are refused. Instances are frozen: what was resolved is what runs.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Strict, frozen, self-describing settings."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )
