"""What ends a response of a model: in generation, in what SFT teaches, and in what a phase saves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers import AutoModelForCausalLM

from dereason.errors import DereasonError
from dereason.lm.base import Sampling
from dereason.lm.endings import reply_text
from dereason.lm.local.model import LocalModel, ModelSettings
from dereason.lm.prompts import Prompt
from dereason.problems.schema import frame
from dereason.training.phase import Optimiser, load_student
from dereason.training.rewards.settings import Format, Rewards, build
from dereason.training.rl import RL, RLOptimiser, run_rl
from dereason.training.rollouts import rollout_table
from dereason.training.sft import SFT, run_sft
from families import FAMILIES, make_tokenizer, save_model

PROMPT = Prompt(suffix="")
HOW = Sampling(temperature=0, max_new_tokens=24, batch_size=4)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_response_ends_with_what_the_template_writes_behind_a_reply(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    lm = LocalModel(ModelSettings(name=str(save_model(family, tmp_path))))
    ids = {token: lm.tokenizer.convert_tokens_to_ids(token) for token in (family.eos, *family.configured)}
    stops = set(ids.values()) | ({lm.tokenizer.convert_tokens_to_ids(family.end)} if family.end else set())
    for stop in stops:
        seen = [*lm.tokenizer.encode("so it is 12", add_special_tokens=False), stop]
        completion = lm._completion(0, 0, seen, [0.0] * len(seen), 3)
        assert (completion.text, completion.hit_limit) == ("so it is 12", False)
    assert set(lm._stop_ids) == stops
    if family.end is None:
        with pytest.raises(DereasonError, match="writes no end token behind a reply"):
            load_student(lm.settings, PROMPT, None)
    else:
        load_student(lm.settings, PROMPT, None)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that SFT has taught one reply by heart, in a template whose end is not the tokenizer's."""
    work = tmp_path_factory.mktemp("taught")
    settings = SFT(
        epochs=60,
        batch=1,
        optimiser=Optimiser(learning_rate=1e-2, schedule="constant", checkpoint_every=1000),
    )
    base = ModelSettings(name=str(save_model(FAMILIES["qwen-base"], work / "base")))
    targets = frame("target", [{"problem_id": "p", "response": "12", "origin": "reference", "accepted": True}])
    run_sft(base, PROMPT, pool(), targets, settings, out=work / "model", work=work, seed=0)
    return work / "model"


def pool() -> pl.DataFrame:
    return frame("problem", [{"id": "p", "question": "5 + 7?", "answer": "12", "domain": "d", "source": "t"}])


def test_a_base_model_stops_where_sft_taught_it_to(taught: Path) -> None:
    lm = LocalModel(ModelSettings(name=str(taught)))
    ((_, (response,)),) = lm.generate([PROMPT.messages("5 + 7?")], 1, HOW, seed=0)
    assert (response.text, response.hit_limit) == ("12", False)
    end = lm.tokenizer.convert_tokens_to_ids("<|im_end|>")
    saved = json.loads((taught / "generation_config.json").read_text())["eos_token_id"]
    assert sorted(saved) == sorted([lm.tokenizer.eos_token_id, end]), "other programs stop there too"
    assert json.loads((taught / "hand-off.json").read_text())["stop_ids"] == sorted(saved)
    plain = AutoModelForCausalLM.from_pretrained(taught)
    ids = lm.tokenizer("<|im_start|>user\n5 + 7?<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt").input_ids
    out = plain.generate(ids, do_sample=False, max_new_tokens=24, pad_token_id=lm.tokenizer.pad_token_id)
    assert reply_text(lm.tokenizer, out[0, ids.size(1) :].tolist(), saved) == "12", "transformers stops there"


@pytest.mark.parametrize("rollouts", ["engine", "transformers"])
def test_rollouts_of_a_base_model_stop_there_too(taught: Path, rollouts: Any, tmp_path: Path) -> None:
    """The start's own generation config names the end of a text alone, as base models' do."""
    path = taught / "generation_config.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"eos_token_id": 256}))
    settings = RL(
        steps=1,
        prompts_per_generation=1,
        group_size=2,
        max_new_tokens=24,
        rollouts=rollouts,
        optimiser=RLOptimiser(learning_rate=1e-9),
    )
    try:
        run_rl(
            ModelSettings(name=str(taught)),
            PROMPT,
            pool(),
            settings,
            identity="t",
            out=tmp_path / "model",
            work=tmp_path,
            seed=0,
        )
    finally:
        path.write_text(kept)
    drawn = rollout_table(tmp_path)
    assert drawn["response"].to_list() == ["12", "12"]
    assert drawn["tokens"].to_list() == [3, 3]
    assert not drawn["hit_limit"].any()


def test_the_think_shape_begins_where_the_template_ends() -> None:
    """A template that opens the thought itself: asking for it once more would reward what no response should have."""
    family = FAMILIES["qwen-base"]
    opens = replace(family, template=str(family.template).replace("assistant\n' }}", "assistant\n<think>\n' }}"))
    for opened, of in ((False, family), (True, opens)):
        tokenizer = make_tokenizer(of)
        (reward,) = build(Rewards(of=[Format(shape="think")]), tokenizer=tokenizer, max_new_tokens=9)
        whole = "<think>5 + 7</think>12"
        scores = reward(["q"] * 2, [whole, whole.removeprefix("<think>")], [[1], [1]], answer=["12"] * 2)
        assert scores == [float(not opened), float(opened)]
        wrong = Rewards(of=[Format(shape="think", opened_by_prompt=not opened)])
        with pytest.raises(
            DereasonError, match=f"the chat template {'opens' if opened else 'does not open'} a thought"
        ):
            build(wrong, tokenizer=tokenizer, max_new_tokens=9)
