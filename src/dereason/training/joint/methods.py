"""All joint methods: what ``method`` of a joint phase may be, and what ``dereason methods`` lists."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from dereason.training.joint.alternating import Alternating
from dereason.training.joint.bread import BREAD
from dereason.training.joint.bridge import Bridge
from dereason.training.joint.chord import CHORD
from dereason.training.joint.dypo import DYPO
from dereason.training.joint.hpt import HPT
from dereason.training.joint.luffy import LUFFY
from dereason.training.joint.prefix_rft import PrefixRFT
from dereason.training.joint.relift import ReLIFT
from dereason.training.joint.srft import SRFT
from dereason.training.joint.superrl import SuperRL
from dereason.training.joint.uft import UFT
from dereason.training.joint.weighted import Weighted

JointMethod = Annotated[
    Alternating | Weighted | LUFFY | ReLIFT | SuperRL | HPT | SRFT | CHORD | PrefixRFT | UFT | BREAD | DYPO | Bridge,
    Field(discriminator="name"),
]


ORDERS: list[dict[str, str]] = [
    {
        "name": "sft-then-rl",
        "paper": "2604.23747",
        "rule": "a whole SFT phase, then a whole RL phase: the baseline that a mixture has to beat",
        "needs": "demonstrations",
        "recipe": "phases: [{kind: sft}, {kind: rl}]",
    },
    {
        "name": "metis-rise",
        "paper": "2506.13056",
        "rule": "RL first, then SFT on the student's own correct responses and on demonstrations",
        "needs": "demonstrations",
        "recipe": "phases: [{kind: rl}, {kind: sft, targets: [{style: self}, {style: solution}]}]",
    },
]
"""Ways to combine SFT and RL by the order of whole phases."""


def listed() -> list[dict[str, str]]:
    """Every way to combine SFT and RL: its name, paper, rule, what it needs, and how a recipe says it."""
    rows = []
    for method in get_args(get_args(JointMethod)[0]):
        name = get_args(method.model_fields["name"].annotation)[0]
        needs = ["demonstrations"]
        needs += ["a reference model"] if method().needs_reference else []
        needs += ["a shadow copy of the model"] if name == "bridge" else []
        rows.append(
            {
                "name": name,
                "paper": method.paper,
                "rule": method.rule,
                "needs": ", ".join(needs),
                "recipe": f"{{kind: joint, method: {{name: {name}}}}}",
            }
        )
    return [*rows, *ORDERS]
