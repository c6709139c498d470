"""The recipe: one YAML file that says what is compared, read strictly.

Unknown keys and bad values are refused before any model is loaded, each with its line and a mend.
"""

from __future__ import annotations

import difflib
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator, model_validator

from dereason.difficulty.profiles import Profile
from dereason.errors import DereasonError
from dereason.evaluation.evaluate import Evaluation
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.pipeline.start import Start
from dereason.problems.sources import Source
from dereason.routing.policies import DomainMatched, Policy, Random, Reversed, needs, sets
from dereason.settings import Settings
from dereason.supervision.targets import Targets
from dereason.training.launch import Launch
from dereason.training.rewards.settings import Judge
from dereason.training.rl import RL
from dereason.training.sft import SFT
from dereason.verify.verifier import VerifierSettings


class Problems(Settings):
    """The pool that is routed and the held-out problems that are scored."""

    train: Source
    """The pool: profiled, routed, trained on."""
    test: Source
    """Held-out problems; pool problems with the same question are dropped from the pool."""
    drop_unanswered: bool = False
    """Drop (and count) problems without a reference answer; false refuses them by row number."""


class SFTPhase(SFT):
    """A supervised phase on one set."""

    kind: Literal["sft"]
    """Names this kind of phase."""
    set: str = "sft"
    """Which routed set it trains on."""
    targets: Targets = Targets()
    """What is imitated."""


class RLPhase(RL):
    """A reinforcement-learning phase on one set."""

    kind: Literal["rl"]
    """Names this kind of phase."""
    set: str = "rl"
    """Which routed set it trains on."""
    start: Start | None = None
    """Which of the models that the SFT phase before it kept it begins with; null takes the last."""


Phase = Annotated[SFTPhase | RLPhase, Field(discriminator="kind")]


class Arm(Settings):
    """A routing policy and the phases that follow it: what gets compared."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Letters, digits, dot, dash and underscore."""
    route: Policy
    """How problems are assigned to sets."""
    phases: list[Phase] = Field(min_length=1)
    """Training phases in order; any order and number."""

    @model_validator(mode="after")
    def _sets_exist(self) -> Self:
        if _unresolved(self.route):
            return self
        offered = sets(self.route)
        for at, phase in enumerate(self.phases):
            if phase.set not in offered:
                raise ValueError(
                    f"phases[{at}].set is {phase.set!r}, which the policy {self.route.policy!r} never fills "
                    f"(it fills {', '.join(sorted(offered))})"
                )
        return self

    @model_validator(mode="after")
    def _whole_weights_to_quantise(self) -> Self:
        for at, (before, phase) in enumerate(pairwise(self.phases), 1):
            kept = before.adapter is not None and not before.adapter.merge
            if kept and phase.adapter is not None and phase.adapter.quantise != "none":
                raise ValueError(
                    f"phases[{at}].adapter.quantise needs whole weights, and phases[{at - 1}] keeps an adapter beside "
                    "its base: let that one merge it"
                )
        return self

    @model_validator(mode="after")
    def _starts_to_choose_from(self) -> Self:
        for at, phase in enumerate(self.phases):
            before = self.phases[at - 1] if at else None
            if not isinstance(phase, RLPhase) or phase.start is None:
                continue
            if not isinstance(before, SFTPhase) or before.keep_checkpoints < 2:
                raise ValueError(
                    f"phases[{at}].start chooses among models that the phase before it kept: that has to be an SFT "
                    "phase with keep_checkpoints of 2 or more"
                )
        return self


class Recipe(Settings):
    """One experiment: problems, profile, arms, seeds, evaluation."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the run directory; letters, digits, dot, dash and underscore."""
    description: str = ""
    """One or two sentences for the report."""
    model: ModelSettings = ModelSettings()
    """The student: the model that is profiled, trained and evaluated."""
    prompt: Prompt = Prompt()
    """How questions are put, in every phase and in evaluation."""
    problems: Problems
    """Pool and held-out problems."""
    profile: Profile = Profile()
    """What is measured of each problem before routing."""
    arms: list[Arm] = Field(min_length=1)
    """What gets compared."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Training seeds; every arm is trained once with each."""
    evaluation: Evaluation = Evaluation()
    """How base and trained models are scored on the held-out problems."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the verifier that judges every response: in profiles, targets, rollouts and evaluation."""
    launch: Launch = Launch()
    """In how many processes phases train."""

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed stands twice")
        return seeds

    @model_validator(mode="before")
    @classmethod
    def _resolve_arm_references(cls, data: Any) -> Any:
        """Replace `like: NAME` and `of: NAME` by the named arm's own policy."""
        if not isinstance(data, dict) or not isinstance(data.get("arms"), list):
            return data
        routes = {a.get("name"): a.get("route") for a in data["arms"] if isinstance(a, dict)}
        arms = [
            {**a, "route": _resolved(a.get("route"), routes, (a.get("name"),))} if isinstance(a, dict) else a
            for a in data["arms"]
        ]
        return {**data, "arms": arms}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [a.name for a in self.arms]
        if len(set(names)) != len(names):
            raise ValueError("two arms have the same name")
        for arm in self.arms:
            for need in sorted(needs(arm.route)):
                if not (self.profile.judge if need == "judge" else self.profile.pass_rate).enabled:
                    raise ValueError(f"arm {arm.name!r} routes by {need}, and profile.{need}.enabled is false")
        return self

    def models(self) -> list[ModelSettings]:
        """Every model that the recipe names: student, judge, teachers, judges of rewards."""
        named: list[ModelSettings | None] = [self.model, self.profile.judge.model]
        for phase in (p for arm in self.arms for p in arm.phases):
            named += [phase.targets.teacher] if isinstance(phase, SFTPhase) else judges(phase)
        return [m for m in named if m is not None]

    def needs(self) -> frozenset[str]:
        """Which profilers any arm's policy reads."""
        return frozenset(n for arm in self.arms for n in needs(arm.route))


def judges(phase: RL) -> list[ModelSettings]:
    """The models that judge answers for a phase's rewards."""
    return [reward.model for reward in phase.rewards if isinstance(reward, Judge)]


def _unresolved(policy: BaseModel) -> bool:
    if isinstance(policy, Random | Reversed | DomainMatched):
        inner = (
            policy.like if isinstance(policy, Random) else policy.of if isinstance(policy, Reversed) else policy.rule
        )
        return isinstance(inner, str) or _unresolved(inner)
    return False


def _resolved(route: Any, routes: dict[Any, Any], trail: tuple[Any, ...]) -> Any:
    if not isinstance(route, dict):
        return route
    out = dict(route)
    for key in _NESTED_POLICIES:
        inner = out.get(key)
        if isinstance(inner, str):
            if inner in trail:
                raise ValueError(f"arms refer to each other in a circle: {' -> '.join([*map(str, trail), inner])}")
            if inner not in routes:
                raise ValueError(f"`{key}: {inner}` names no arm (arms: {', '.join(map(str, routes))})")
            out[key] = _resolved(routes[inner], routes, (*trail, inner))
        elif isinstance(inner, dict):
            out[key] = _resolved(inner, routes, trail)
    return out


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("dereason") / "recipes"))
    return {p.stem: p for p in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """A recipe by path, or a shipped one by name.

    Raises:
        DereasonError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    if name in shipped():
        return shipped()[name]
    close = difflib.get_close_matches(name, shipped(), 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise DereasonError(f"no recipe {name!r}", f"{hint}give a YAML file, or one of: {', '.join(shipped())}")


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: ``key.path=value`` strings, values parsed as YAML; list items by number (``arms.0.name=x``).

    Raises:
        DereasonError: not YAML, an unknown key, a bad value; names the file and the line.
    """
    data, lines = read_yaml(path)
    for text in overrides or []:
        apply_override(data, text)
        lines[tuple(_parts(text.split("=", 1)[0]))] = f"--set {text}"
    return parse(Recipe, data, str(path), lines)


S = TypeVar("S", bound=BaseModel)
Lines = dict[tuple[str | int, ...], int | str]


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """A YAML mapping (safe-loaded) and the line of each of its keys.

    Raises:
        DereasonError: unreadable, not YAML, a key twice, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as exc:
        raise DereasonError(f"{path}: cannot be read: {exc}", "check the path") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise DereasonError(f"{path}: {line}not YAML: {getattr(exc, 'problem', exc)}", "mend that line") from exc
    if not isinstance(data, dict):
        raise DereasonError(f"{path}: not a recipe", "a recipe is a mapping; copy a shipped one (`dereason recipes`)")
    lines: Lines = {}
    _collect(node, (), lines, path)
    return data, lines


def _collect(node: Any, at: tuple[str | int, ...], lines: Lines, path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            if here in lines:
                raise DereasonError(
                    f"{path}: line {key.start_mark.line + 1}: the key {key.value!r} stands twice",
                    "remove one",
                )
            lines[here] = key.start_mark.line + 1
            _collect(value, here, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*at, i)] = value.start_mark.line + 1
            _collect(value, (*at, i), lines, path)


def _parts(key: str) -> list[str | int]:
    return [int(p) if p.isdigit() else p for p in key.strip().split(".")]


def apply_override(data: dict[str, Any], text: str) -> None:
    """Set one ``key.path=value`` in nested mappings and lists, in place.

    Raises:
        DereasonError: no ``=``, bad YAML, or a path that does not exist in a list.
    """
    if "=" not in text:
        raise DereasonError(f"--set {text!r} has no '='", "write it as --set key.path=value")
    key, raw = text.split("=", 1)
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as exc:
        raise DereasonError(f"--set {text!r}: the value is not YAML", "quote it") from exc
    parts = _parts(key)
    here: Any = data
    for depth, part in enumerate(parts[:-1]):
        if isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif isinstance(here, dict):
            if not isinstance(here.get(part), dict | list):
                here[part] = {}
            here = here[part]
        else:
            where = ".".join(map(str, parts[: depth + 1]))
            raise DereasonError(f"--set {text!r}: there is no {where}", "list items are numbered from 0")
    last = parts[-1]
    if isinstance(here, list):
        if not isinstance(last, int) or last >= len(here):
            raise DereasonError(f"--set {text!r}: there is no item {last}", "list items are numbered from 0")
        here[last] = value
    else:
        here[last] = value


def parse(model: type[S], data: dict[str, Any], where: str, lines: Lines | None = None) -> S:
    """Validate data into a settings model.

    Raises:
        DereasonError: the first problem found, with its line where known, the field, and a mend.
    """
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        error = exc.errors()[0]
        more = f" (and {exc.error_count() - 1} more)" if exc.error_count() > 1 else ""
        keys = _real_path(error["loc"], data)
        line = next((lines[k] for i in range(len(keys), 0, -1) if lines and (k := keys[:i]) in lines), None)
        at = f"line {line}: " if isinstance(line, int) else f"{line}: " if line else ""
        field = ".".join(map(str, keys)) or model.__name__.lower()
        cause, mend = _explain(error, model, keys)
        raise DereasonError(f"{where}: {at}{field}: {cause}{more}", mend) from exc


def _real_path(loc: tuple[int | str, ...], data: Any) -> tuple[int | str, ...]:
    """A pydantic location without the tags of discriminated unions, so that it names keys of the file."""
    path: list[int | str] = []
    here = data
    for at, part in enumerate(loc):
        if isinstance(here, list) and isinstance(part, int):
            here = here[part] if part < len(here) else None
        elif isinstance(here, dict) and part in here:
            here = here[part]
        elif at != len(loc) - 1:
            continue  # the tag of a union
        path.append(part)
    return tuple(path)


def _explain(error: Any, model: type[BaseModel], keys: tuple[int | str, ...]) -> tuple[str, str]:
    if error["type"] == "extra_forbidden":
        known = sorted(_known_keys(model))
        close = difflib.get_close_matches(str(keys[-1]), known, 1)
        return "unknown key", f"did you mean {close[0]!r}?" if close else "see `dereason recipe explain`"
    if error["type"] == "missing":
        return "missing", "add it; `dereason recipe explain` says what it is"
    given = error.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) or given is None else ""
    message = error["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}{shown}", "see `dereason recipe explain` for what it takes"


def _known_keys(model: type[BaseModel]) -> set[str]:
    return {key.rsplit(".", 1)[-1] for key, *_ in explain(model)}


def explain(model: type[BaseModel] = Recipe, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Every field of a settings model: (dotted path, type, default, description), depth first."""
    rows: list[tuple[str, str, str, str]] = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        default = "required" if field.is_required() else _short(field.get_default(call_default_factory=True))
        rows.append((path, _type_name(field.annotation), default, " ".join((field.description or "").split())))
        if name not in _NESTED_POLICIES:
            for label, inner in inner_models(field.annotation):
                rows += explain(inner, f"{path}<{label}>." if label else f"{path}.")
    return rows


_NESTED_POLICIES = ("like", "of", "rule")  # hold any policy again: explaining them would never end


def inner_models(annotation: Any) -> list[tuple[str, type[BaseModel]]]:
    """Settings models inside an annotation, with the tag that selects each where there are several."""
    found: list[type[BaseModel]] = []

    def walk(a: Any) -> None:
        if isinstance(a, type) and issubclass(a, BaseModel):
            found.append(a)
        for arg in getattr(a, "__args__", ()):
            walk(arg)

    walk(annotation)
    tags = []
    for f in found:
        literal = next(
            (f.model_fields[k].annotation for k in ("policy", "kind", "source", "name") if k in f.model_fields), None
        )
        tags.append(str(getattr(literal, "__args__", ("",))[0]) if len(found) > 1 else "")
    return list(zip(tags, found, strict=True))


def _type_name(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    args = getattr(annotation, "__args__", None)
    if args and str(annotation).startswith("typing.Literal"):
        return " | ".join(map(str, args))
    for noise in ("typing.", "dereason.", "Annotated"):
        text = text.replace(noise, "")
    return text if len(text) < 60 else "mapping or list"


def _short(value: Any) -> str:
    if isinstance(value, BaseModel):
        return ""
    value = TypeAdapter(Any).dump_python(value, mode="json")
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) < 50 else text[:47] + "..."


def resolved_yaml(recipe: Recipe, base: Path | None = None) -> str:
    """The recipe with every default written out, as YAML; with ``base``, relative file paths made absolute."""
    data = recipe.model_dump(mode="json")
    for source in data["problems"].values():
        if base is not None and isinstance(source, dict) and source["source"] == "file":
            source["path"] = str((base / source["path"]).resolve())
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
