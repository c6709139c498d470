"""All joint methods: what ``method`` of a joint phase may be, and what ``dereason methods`` lists."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dereason.training.joint.alternating import Alternating
from dereason.training.joint.chord import CHORD
from dereason.training.joint.hpt import HPT
from dereason.training.joint.luffy import LUFFY
from dereason.training.joint.relift import ReLIFT
from dereason.training.joint.srft import SRFT
from dereason.training.joint.superrl import SuperRL
from dereason.training.joint.weighted import Weighted

JointMethod = Annotated[
    Alternating | Weighted | LUFFY | ReLIFT | SuperRL | HPT | SRFT | CHORD, Field(discriminator="name")
]
