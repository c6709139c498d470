"""dereason: which training problem belongs to supervised fine-tuning, and which to reinforcement learning.

profile → route → supervise → train → evaluate → report, on one data flow. The names below are the pieces as
typed functions; the command line (``dereason --help``) is a thin shell over the same.

Importing this module is cheap: each name is fetched from its room when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dereason.difficulty.judge import judge_scores as judge_scores
    from dereason.difficulty.pass_rate import pass_rates as pass_rates
    from dereason.difficulty.profiles import build_profiles as build_profiles
    from dereason.errors import DereasonError as DereasonError
    from dereason.evaluation.evaluate import compare as compare
    from dereason.evaluation.evaluate import score as score
    from dereason.lm.base import Sampling as Sampling
    from dereason.lm.load import load_model as load_model
    from dereason.lm.local.model import LocalModel as LocalModel
    from dereason.lm.local.model import ModelSettings as ModelSettings
    from dereason.lm.prompts import Prompt as Prompt
    from dereason.pipeline.plan import make_plan as make_plan
    from dereason.pipeline.recipe import Recipe as Recipe
    from dereason.pipeline.recipe import find_recipe as find_recipe
    from dereason.pipeline.recipe import load_recipe as load_recipe
    from dereason.pipeline.run import run_recipe as run_recipe
    from dereason.pipeline.verdicts import verify_file as verify_file
    from dereason.problems.schema import Origin as Origin
    from dereason.problems.schema import Verdict as Verdict
    from dereason.problems.schema import read_table as read_table
    from dereason.problems.schema import write_table as write_table
    from dereason.problems.sources import load_source as load_source
    from dereason.report import write_report as write_report
    from dereason.routing.policies import route as route
    from dereason.supervision.reference import reference_targets as reference_targets
    from dereason.training.rl import run_rl as run_rl
    from dereason.training.sft import run_sft as run_sft
    from dereason.verify.samples import draw_samples as draw_samples
    from dereason.verify.verdict import judge_response as judge_response
    from dereason.verify.verifier import Verifier as Verifier
    from dereason.verify.verifier import VerifierSettings as VerifierSettings

__version__ = "0.1.0"

_HOME = {
    "DereasonError": "errors",
    "LocalModel": "lm.local.model",
    "ModelSettings": "lm.local.model",
    "Origin": "problems.schema",
    "Prompt": "lm.prompts",
    "Recipe": "pipeline.recipe",
    "Sampling": "lm.base",
    "Verdict": "problems.schema",
    "Verifier": "verify.verifier",
    "VerifierSettings": "verify.verifier",
    "build_profiles": "difficulty.profiles",
    "compare": "evaluation.evaluate",
    "draw_samples": "verify.samples",
    "find_recipe": "pipeline.recipe",
    "judge_response": "verify.verdict",
    "judge_scores": "difficulty.judge",
    "load_model": "lm.load",
    "load_recipe": "pipeline.recipe",
    "load_source": "problems.sources",
    "make_plan": "pipeline.plan",
    "pass_rates": "difficulty.pass_rate",
    "read_table": "problems.schema",
    "reference_targets": "supervision.reference",
    "route": "routing.policies",
    "run_recipe": "pipeline.run",
    "run_rl": "training.rl",
    "run_sft": "training.sft",
    "score": "evaluation.evaluate",
    "verify_file": "pipeline.verdicts",
    "write_report": "report",
    "write_table": "problems.schema",
}

__all__ = sorted(_HOME)  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dereason' has no attribute {name!r}")
    value = getattr(import_module(f"dereason.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
