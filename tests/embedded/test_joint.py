"""Every arm of the comparison recipe takes real steps; one of each trainer on the real embedded model."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from dereason.lm.local.model import ModelSettings
from dereason.pipeline.recipe import JointPhase, find_recipe, load_recipe
from dereason.problems.sources import GymSource, load_source
from dereason.supervision.reference import reference_targets
from dereason.training.joint.methods import listed
from dereason.training.joint.settings import Joint
from dereason.training.rl import run_rl

pytestmark = pytest.mark.slow

RECIPE = load_recipe(find_recipe("joint-comparison-small"))
PHASES = {arm.name: arm.phases[0] for arm in RECIPE.arms if isinstance(arm.phases[0], JointPhase)}


def test_the_recipe_has_every_method_and_what_they_are_compared_with() -> None:
    methods = {phase.method.name for phase in PHASES.values()}
    assert methods == {row["name"] for row in listed()} - {"sft-then-rl", "metis-rise"}
    assert RECIPE.arms[0].name == "sft-then-rl", "the arm that all others are compared with"
    assert len({json.dumps(p.model_dump(mode="json", exclude={"method", "kl"})) for p in PHASES.values()}) == 1


@pytest.mark.parametrize("arm", sorted(PHASES))
def test_a_method_takes_real_steps(arm: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # BRIDGE has a trainer of its own; of the others one stands for all: what differs is no matter of the model's size.
    model = ModelSettings() if arm in ("bridge", "luffy") else ModelSettings(name=str(tiny_model))
    # Half a gigabyte and seconds each, and the same for every method but BRIDGE, whose LoRA has to be merged.
    if arm != "bridge":
        monkeypatch.setattr("dereason.training.rl.save_model", lambda *args, **kw: None)
    short = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    source = {"source": "reasoning_gym", "seed": 1, "families": [{"family": "chain_sum", "size": 4, "args": short}]}
    pool = load_source(GymSource.model_validate(source))
    steps = 2 if arm == "alternating" else 1  # whose second step is of the other kind
    phase = PHASES[arm].model_dump(include=set(Joint.model_fields)) | {
        "steps": steps,
        "prompts_per_generation": 2,
        "group_size": 2,
        "max_new_tokens": 32,
    }
    result = run_rl(
        model,
        RECIPE.prompt,
        pool,
        Joint.model_validate(phase),
        identity=arm,
        out=tmp_path / "model",
        work=tmp_path,
        seed=0,
        demonstrations=reference_targets(pool, "steps"),
    )
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert result.steps == len(logged) == steps
    assert all(math.isfinite(row["loss"]) for row in logged)
    # a random model solves nothing, and where no rollout has signal some methods train on none
    assert (result.tokens_trained if arm in ("bridge", "luffy") else result.tokens_generated) > 0
    shutil.rmtree(tmp_path)
