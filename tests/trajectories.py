"""Trajectories of training, recorded: three steps of every loss, method and option, in float64 on tiny models.

What is written down of each step: the loss, the gradient's norm and its product with a fixed vector, and both of what
the weights have changed by. Rollouts, rewards and initial weights are scripted: nothing but training is in them.

    python tests/trajectories.py             # what has moved since they were recorded: a table of old, new, difference
    python tests/trajectories.py --record    # the same table, and record them anew

``tests/training/test_trajectories.py`` replays them. A number that moves is named, with its reason, in the change log.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, MixtralConfig, PreTrainedTokenizerFast, PrinterCallback
from trl import SFTConfig

from dereason.lm.local.model import ModelSettings, load_tokenizer
from dereason.training.adapters import LoRA, attach
from dereason.training.joint.settings import Joint
from dereason.training.phase import Optimiser, trainer_arguments
from dereason.training.rl import RL
from dereason.training.sft import SFT, make_row
from dereason.training.sft_trainer import make_trainer_class as make_sft_class
from dereason.training.trainer import make_trainer_class as make_rl_class
from joint_recorded import PROMPT, Script, recorded

FILE = Path(__file__).with_suffix(".json")
STEPS = 3
LIMIT = 28
Step = dict[str, float]

# -- what is trained on -----------------------------------------------------------------------------------------------

TEXTS = {
    "a": [r"It is \boxed{7}", r"\boxed{8} I say", "no answer here", r"so 3 + 4 = \boxed{7} and some more"],
    "b": [r"\boxed{9}", r"we add: \boxed{90}", "what?", "one two three four five six seven"],
    "c": [r"\boxed{2}", "hm", r"two, I think: \boxed{2}", r"\boxed{3} or so"],
    "d": [r"\boxed{7}", r"of course \boxed{7}", r"7, \boxed{7}", r"that is \boxed{7}"],
}
SHOWN = {
    "a": r"3 + 4 = 7: \boxed{7}",
    "b": r"4 + 6 = 10, so \boxed{10}",
    "d": r"one more is \boxed{7}",
}
"""One problem is solved at times, one never, one always; the one that is not shown is solved at times too."""
RIGHT = {"a": (0, 3), "b": (), "c": (0, 2), "d": (0, 1, 2, 3)}
SHARES = {"a": [1.0, 0.25, -0.5, 0.75], "b": [0.0, 0.25, 0.0, 0.0], "c": [1.0, 0.5, 1.0, 0.0], "d": [1.0] * 4}
"""Rewards between right and wrong; sums of them are exact in any precision."""


def verdicts(id: str, index: int, given: int) -> float:
    """Right or wrong; problem b is solved behind a good part of its demonstration."""
    return float(index in RIGHT[id] or (id == "b" and index == 1 and given > 8))


def shares(id: str, index: int, given: int) -> float:
    """Rewards between right and wrong."""
    return SHARES[id][index]


def undecided(id: str, index: int, given: int) -> float | None:
    """The verifier failed once."""
    return None if (id, index) == ("a", 1) else SHARES[id][index]


# -- models -----------------------------------------------------------------------------------------------------------

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_models(folder: Path) -> dict[str, Path]:
    """Folders of a random dense model and of a random mixture of experts, in float64, whose tokens are bytes.

    Their weights are numpy's uniform numbers, the same on every machine.
    """
    marks = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: i for i, token in enumerate([*letters, *marks])}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens(marks)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    kinds = {
        # Llama's norm passes through float32, and so does a router
        "dense": GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=256,
            n_embd=16,
            n_layer=2,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,
            **ids,
        ),
        "moe": MixtralConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            num_local_experts=4,
            num_experts_per_tok=2,
            output_router_logits=True,
            **ids,
        ),
    }
    for name, config in kinds.items():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
        scatter(dict(model.named_parameters()), 0.5)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in kinds}


def scatter(weights: Mapping[str, Any], scale: float) -> None:
    """Fill tensors with uniform numbers; norms' weights stay near one."""
    stream = np.random.default_rng(7)
    with torch.no_grad():
        for name in sorted(weights):
            drawn = torch.from_numpy(stream.uniform(-scale, scale, tuple(weights[name].shape)))
            weights[name].copy_(drawn + 1 if re.search(r"(norm|ln_\w+)\.weight$", name) else drawn)


def prepared(case: Case, folder: Path, model: Any) -> Any:
    """The model that a case trains: maybe with a LoRA, whose weights are scripted too."""
    if case.model == "moe":
        model.set_experts_implementation("eager")  # the others have no float64
    if case.adapter:
        model = attach(model, LoRA(rank=4, alpha=4.0), ModelSettings(name=str(folder)), 0)
        scatter_adapter(model)
    return model


def scatter_adapter(model: Any) -> None:
    """As :func:`scatter`, of the adapter alone."""
    weights = {name: p for name, p in model.named_parameters() if "lora_" in name}
    for p in weights.values():
        p.data = p.data.double()
    scatter(weights, 0.2)


def shrunk(model: Any) -> Any:
    """A reference that is not the policy."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    return model


# -- cases ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A few steps of one kind of training.

    Attributes:
        kind: ``rl``, ``joint`` or ``sft``.
        settings: of the phase.
        model: ``dense`` or ``moe``.
        adapter: whether a LoRA is trained in place of the weights.
        rewards: of rollouts.
        single: numbers in it pass through float32.
        said: log-probabilities of drawn tokens by the engine; NaN: no sampler drew them.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = "dense"
    adapter: bool = False
    rewards: Callable[[str, int, int], float | None] = verdicts
    single: bool = False
    said: float = float("nan")


LOSSES = ("dapo", "grpo", "dr_grpo", "rloo")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "kl": {"kl": 0.1},
    "twice": {"iterations": 2, "clip_low": 0.1, "clip_high": 0.15},
    "masked": {"mask_truncated": True},
}
OTHERS: dict[str, dict[str, Any]] = {
    "rl gspo": {"algorithm": "gspo", "iterations": 2, "clip_low": 0.01, "clip_high": 0.02},
    "rl dr_grpo, unscaled": {"algorithm": "dr_grpo"},
    "rl rloo, leave-one-out": {"algorithm": "rloo"},
    "rl dapo, entropy": {"entropy_bonus": 0.01},
    "rl dapo, two updates": {"updates_per_generation": 2},
}
METHODS: dict[str, dict[str, Any]] = {
    "weighted": {},
    "alternating": {},
    "luffy": {},
    "luffy, two normalisers": {"pooled": False},
    "relift": {"queue": {"batch": 1, "learning_rate": 1e-2}},
    "superrl": {},
    "hpt": {},
    "hpt, by term": {"per": "term"},
    "hpt, gate 2": {"gate": 2, "sft_weight": 0.3},
    "srft": {},
    "chord": {},
    "chord, phi": {"phi": True},
    "prefix_rft": {},
    "uft": {"sft_weight": 0.1},
    "bread": {},
    "dypo": {},
    "dypo, released": {"form": "released", "queue": {"batch": 1, "learning_rate": 1e-2}},
    "dypo, by term": {"per": "term"},
    "bridge": {"rank": 4, "alpha": 4.0, "lora_learning_rate": 1e-2},
}


def make_cases() -> dict[str, Case]:
    """Every case by its name."""
    cases = {
        f"rl {loss}, {option}": Case("rl", {"loss": loss, **settings}, rewards=shares)
        for loss in LOSSES
        for option, settings in OPTIONS.items()
    }
    cases |= {name: Case("rl", settings, rewards=shares) for name, settings in OTHERS.items()}
    cases |= {
        "rl dapo, batch scale": Case("rl", {"scale_rewards": "batch"}, rewards=shares, single=True),
        "rl grpo, undecided": Case("rl", {"loss": "grpo"}, rewards=undecided),
        "rl dapo, other engine": Case("rl", {"rollouts": "vllm-server"}, rewards=shares, said=-5.5),
        "rl rloo, verifree": Case(
            "rl", {"algorithm": "rloo", "rewards": {"of": [{"name": "verifree"}]}}, rewards=shares
        ),
        "rl dapo, lora": Case("rl", {"kl": 0.1}, adapter=True, rewards=shares),
        "rl dapo, moe": Case("rl", {}, model="moe", rewards=shares, single=True),
        "sft": Case("sft"),
        "sft, lora": Case("sft", adapter=True),
        "sft, moe": Case("sft", model="moe", single=True),
    }
    for name, settings in METHODS.items():
        method = {"name": name.split(",")[0], **settings}
        cases[f"joint {name}"] = Case("joint", {"method": method})
        cases[f"joint {name}, kl"] = Case("joint", {"method": method, "loss": "grpo", "kl": 0.1})
        if name in ("luffy", "relift", "srft", "prefix_rft"):
            cases[f"joint {name}, lora"] = Case("joint", {"method": method}, adapter=True)
    cases["joint luffy, unscaled"] = Case(
        "joint", {"method": {"name": "luffy"}, "loss": "dr_grpo", "scale_rewards": "none"}
    )
    cases["joint hpt, twice"] = Case("joint", {"method": {"name": "hpt"}, "iterations": 2, "clip_high": 0.15})
    return cases


CASES = make_cases()
OFTEN = [name for name in CASES if not re.match(r"joint .*, kl$|rl (grpo|dr_grpo|rloo), (kl|twice|masked)$", name)]
"""Cases that the test replays; the script replays the other ones too: methods with a KL term, losses with options."""
SHARED = ("rl dapo, kl", "joint luffy", "joint hpt", "joint relift", "joint dypo", "sft")
"""Cases that two processes replay; what they are to give is what one process gave."""


# -- running ----------------------------------------------------------------------------------------------------------


def run(case: Case, folder: Path, work: Path) -> list[Step]:
    """The steps of a case."""
    trainer = (supervised if case.kind == "sft" else reinforced)(case, folder, work)
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    probe = directions(start)
    steps: list[Step] = []
    inner = trainer.training_step

    def training_step(*args: Any, **kw: Any) -> Any:
        if steps:
            steps[-1] |= moved()
        loss = inner(*args, **kw)
        grads = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
        mean = float(trainer.accelerator.reduce(loss.double(), "mean"))
        steps.append({"loss": mean, **named("gradient", grads, probe)})
        return loss

    def moved() -> Step:
        now = {name: p.detach() for name, p in trainer.model.named_parameters() if name in start}
        return named("change", {name: now[name] - start[name] for name in start}, probe)

    trainer.remove_callback(PrinterCallback)
    trainer.training_step = training_step
    trainer.train()
    steps[-1] |= moved()
    return steps


def directions(weights: Mapping[str, Any]) -> dict[str, Any]:
    """A fixed tensor for each weight."""
    stream = np.random.default_rng(11)
    return {name: torch.from_numpy(stream.uniform(-1, 1, tuple(weights[name].shape))) for name in sorted(weights)}


def named(name: str, values: Mapping[str, Any], probe: Mapping[str, Any]) -> Step:
    """Norm of some tensors, and their product with the fixed ones."""
    norm = sum(float(v.square().sum()) for v in values.values()) ** 0.5
    return {f"{name}_norm": norm, f"{name}_product": sum(float((v * probe[k]).sum()) for k, v in values.items())}


OPTIMISER = {"learning_rate": 1e-2, "schedule": "linear", "micro_batch": 3}


def reinforced(case: Case, folder: Path, work: Path) -> Any:
    """A trainer of RL, or of a joint method."""
    options = {"steps": STEPS, "prompts_per_generation": 4, "group_size": 4, "max_new_tokens": LIMIT}
    options |= {"optimiser": OPTIMISER, "adapter": LoRA(rank=4) if case.adapter else None}
    phase: Any = (Joint if case.kind == "joint" else RL).model_validate({**options, **case.settings})
    make_class: Callable[[], Any] = phase.method.trainer_class if case.kind == "joint" else make_rl_class

    def wrap(model: Any) -> Any:
        if case.kind == "joint":
            model = phase.method.wrap(model, ModelSettings(name=str(folder)), 0)
            scatter_adapter(model)
        return prepared(case, folder, model)

    return recorded(
        folder,
        work,
        phase,
        make_class,
        wrap=wrap,
        reference=shrunk,
        script=Script(texts=TEXTS, shown=SHOWN, rewards=case.rewards, limit=LIMIT, said=case.said),
        shown=tuple(SHOWN),
        **arguments(phase, folder, work),
    )


def arguments(phase: Any, folder: Path, work: Path) -> dict[str, Any]:
    """TRL's, as a phase has them."""
    model = ModelSettings(name=str(folder), device="cpu")
    return trainer_arguments(phase, model, work, seed=0) | {"save_strategy": "no", "max_steps": STEPS}


def supervised(case: Case, folder: Path, work: Path) -> Any:
    """A trainer of SFT."""
    tokenizer = load_tokenizer(ModelSettings(name=str(folder)))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    texts = [(id, text) for id, texts in TEXTS.items() for text in texts[:2]]
    rows = [make_row(tokenizer, PROMPT.messages(f"Problem {id}?", None), text, PROMPT, id) for id, text in texts]
    phase = SFT(batch=4, optimiser=Optimiser.model_validate(OPTIMISER))
    trainer = make_sft_class()(
        model=prepared(case, folder, model),
        args=SFTConfig(
            **arguments(phase, folder, work), max_length=None, dataset_kwargs={"skip_prepare_dataset": True}
        ),
        train_dataset=Dataset.from_list(
            [{"row": i, "input_ids": list(row.prompt), "labels": list(row.prompt)} for i, row in enumerate(rows)]
        ),
        processing_class=tokenizer,
    )
    trainer.phase, trainer.rows = phase, rows
    return trainer


def run_all(names: Sequence[str], work: Path) -> Iterator[tuple[str, list[Step]]]:
    """The steps of some cases, one after the other."""
    folders = make_models(work)
    gc.collect()
    gc.freeze()  # each training collects garbage, and looking through what torch has imported is most of its time
    try:
        for name in names:
            yield name, run(CASES[name], folders[CASES[name].model], work / "trainer")
    finally:
        gc.unfreeze()


def run_shared(work: Path) -> dict[str, list[Step]]:
    """The steps of the shared cases in two processes, by the first of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    places |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    running = []
    for rank in ("0", "1"):
        out = work / f"process-{rank}"
        out.mkdir()
        line = [sys.executable, __file__, "--process", str(out)]
        environment = {**os.environ, **places, "RANK": rank, "LOCAL_RANK": rank}
        running.append(subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True))
    said = [process.communicate()[1] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("\n".join(said))
    return dict(json.loads((work / "process-0" / "steps.json").read_text()))


# -- comparing --------------------------------------------------------------------------------------------------------

EPS = {"double": 2.0**-53, "single": 2.0**-24}
TERMS = 4096
"""Additions that stand between the inputs and a number that is recorded: some 400 tokens, 260 words, 16 dimensions."""
ADAM_EPS = 1e-8
"""What Adam adds to the size of a gradient before it divides by it: a rounding error of a gradient that is all but zero
comes out 1 / ADAM_EPS times as large, beside a change of about 1."""


TINY = 1e-12
"""A gradient that is smaller is none."""


def tolerance(case: Case, step: int, name: str) -> float:
    """How far a number may lie from the recorded one, as a share of its scale, on another CPU.

    Gradients of the first step are sums in float64, and their errors are those of :data:`TERMS` roundings. Behind a
    step of Adam what counts is the error of the smallest gradients. Losses are added up in float32.
    """
    if case.single or name == "loss":
        return 64 * EPS["single"]
    first = TERMS * EPS["double"]
    return first if step == 0 and name.startswith("gradient") else 16 * EPS["double"] / ADAM_EPS


def scale_of(step: Step, name: str) -> float:
    """What a number is compared with: a product with its norm, a loss with one."""
    return max(1.0, abs(step[name])) if name == "loss" else abs(step[name.split("_")[0] + "_norm"])


Moved = tuple[str, int, str, float, float, float]
"""Case, step, name, old, new, difference as a share of the scale."""


def differences(case: str, old: Sequence[Step], new: Sequence[Step]) -> list[Moved]:
    """Every number of a case that has moved by more than rounding."""
    if len(old) != len(new):
        return [(case, 0, "steps", len(old), len(new), float("inf"))]
    found: list[Moved] = []
    for number, (before, after) in enumerate(zip(old, new, strict=True)):
        for name in before:
            apart = abs(after[name] - before[name])
            scale = scale_of(before, name)
            if not apart <= tolerance(CASES[case], number, name) * max(scale, TINY):  # also where it is no number
                found.append((case, number, name, before[name], after[name], apart / scale if scale else apart))
    return found


def load() -> dict[str, list[Step]]:
    """What was recorded."""
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}


def table(moved: Sequence[Moved]) -> str:
    """The numbers that have moved, a line each."""
    lines = ["| case | step | number | old | new | difference |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {c} | {s + 1} | {n} | {old:.9g} | {new:.9g} | {d:.2g} |" for c, s, n, old, new, d in moved]
    return "\n".join(lines)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Recorded trajectories of training.")
    parser.add_argument("--record", action="store_true", help="record them anew")
    parser.add_argument("--process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if arguments.process:
            found = dict(run_all(SHARED, Path(place)))
            (arguments.process / "steps.json").write_text(json.dumps(found))
            return
        found = dict(run_all(list(CASES), Path(place)))
    old = load()
    print(table([line for name in found if name in old for line in differences(name, old[name], found[name])]))
    for words, names in (("new", found.keys() - old.keys()), ("gone", old.keys() - found.keys())):
        print(f"{words}: {', '.join(sorted(names)) or 'none'}")
    if arguments.record:
        FILE.write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    main()
