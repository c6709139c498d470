"""What doctor and the phases refuse: DeepSpeed that loses gradients, versions too old, a GPU that torch cannot use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from dereason.errors import DereasonError
from dereason.lm.local.model import ModelSettings
from dereason.lm.prompts import Prompt
from dereason.pipeline import doctor
from dereason.training import stack
from dereason.training.phase import load_student

OFFLOADED = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}


def zero(stage: object = 2, device: str | None = "cpu", **more: object) -> dict[str, Any]:
    offload = {} if device is None else {"offload_optimizer": {"device": device}}
    return {"zero_optimization": {"stage": stage, **offload, **more}}


@pytest.mark.parametrize(
    ("config", "version", "refused"),
    [
        (zero(1), "0.18.9", True),
        (zero(2), "0.18.9", True),
        (zero(2, None, cpu_offload=True), "0.15.1", True),  # the key's name in old configurations
        (zero(2), "0.19.0", False),
        (zero(2), "0.19.0+3f2a", False),
        (zero(2), "1.0", False),
        (zero(3), "0.18.9", False),
        (zero(0), "0.18.9", False),
        (zero(2, "none"), "0.18.9", False),
        (zero(2, None), "0.18.9", False),
        ({}, "0.18.9", False),
        (None, "0.18.9", False),
        (zero(2), None, False),  # accelerate itself says that DeepSpeed is missing
    ],
)
def test_deepspeed_that_drops_gradients_is_refused(
    config: dict[str, Any] | None, version: str | None, refused: bool
) -> None:
    found = stack.refusals(config, {} if version is None else {"deepspeed": version})
    assert len(found) == refused
    if refused:
        assert "drops the gradients of all but one" in found[0].reason
        assert "deepspeed>=0.19" in found[0].mend
        assert "2604.23747" in found[0].source
        assert version in found[0].what


def test_what_the_launcher_says_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(version: str = "0.18.4") -> int:
        return len(stack.refusals(stack.launched(), {"deepspeed": version}))

    assert stack.launched() is None
    for name, value in OFFLOADED.items():
        monkeypatch.setenv(name, value)
    assert refused() == 1, "accelerate's default is ZeRO-2"
    assert refused("0.19") == 0
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    assert refused() == 0
    file = tmp_path / "ds.json"
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    for content, count in ((zero(1), 1), (zero(3), 0), (zero(1, "auto"), 1), (zero("auto"), 0)):
        file.write_text(json.dumps(content))
        assert refused() == count
    file.write_text("{")
    with pytest.raises(DereasonError, match="cannot read its DeepSpeed configuration"):
        stack.launched()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "false")
    assert stack.launched() is None


def test_accelerates_own_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "accelerate.yaml"
    file.write_text(
        "distributed_type: DEEPSPEED\ndeepspeed_config:\n  zero_stage: 1\n  offload_optimizer_device: cpu\n"
    )
    with pytest.raises(DereasonError, match="ZeRO-1 and the optimiser offloaded to the CPU: with several backward"):
        stack_check(stack.from_accelerate(file))
    inner = tmp_path / "ds.json"
    inner.write_text(json.dumps(zero(2)))
    file.write_text(f"distributed_type: DEEPSPEED\ndeepspeed_config: {{deepspeed_config_file: {inner}}}\n")
    with pytest.raises(DereasonError, match="ZeRO-2 and the optimiser offloaded"):
        stack_check(stack.from_accelerate(file))
    file.write_text("distributed_type: MULTI_GPU\n")
    assert stack.from_accelerate(file) is None
    file.write_text("a: [")
    with pytest.raises(DereasonError, match="cannot be read as an accelerate configuration"):
        stack.from_accelerate(file)


def stack_check(config: dict[str, Any] | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "installed", lambda: {"deepspeed": "0.18.4"})
        stack.check(config)


def test_a_phase_refuses_before_it_loads_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in OFFLOADED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stack, "installed", lambda: {"deepspeed": "0.18.4"})
    with pytest.raises(DereasonError, match=r"DeepSpeed 0\.18\.4 with ZeRO-2 .* pull requests 7967 and 7981"):
        load_student(ModelSettings(name=str(tmp_path / "no-model")), Prompt(), None)


def findings() -> dict[str, dict[str, Any]]:
    return {row["check"]: row for row in doctor.examine()}


def test_doctor_shows_the_same_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stack, "installed", dict)
    monkeypatch.setattr(doctor, "_accelerate_default", lambda: None)
    assert "deepspeed" not in findings()
    monkeypatch.setattr(stack, "installed", lambda: {"deepspeed": "0.18.4"})
    row = findings()["deepspeed"]
    assert row["state"] == "ok"
    assert row["found"] == "0.18.4; no phase starts with ZeRO-1 or 2 and CPU offloading"
    file = tmp_path / "default_config.yaml"  # what `accelerate config` has left
    file.write_text("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2, offload_optimizer_device: cpu}\n")
    monkeypatch.setattr(doctor, "_accelerate_default", lambda: file)
    row = findings()["deepspeed"]
    assert row["state"] == "broken"
    assert "drops the gradients of all but one" in row["found"]
    assert "deepspeed>=0.19" in row["mend"]
    monkeypatch.setattr(stack, "installed", lambda: {"deepspeed": "0.19.2"})
    assert findings()["deepspeed"] == {"check": "deepspeed", "state": "ok", "found": "0.19.2", "mend": ""}
    file.write_text("[")
    assert findings()["deepspeed"]["state"] == "broken"


def test_doctor_compares_versions_with_the_packages_own_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = doctor._bounds()
    assert {"torch", "transformers", "trl", "accelerate"} <= bounds.keys()
    assert "pytest" not in bounds, "no extras"
    monkeypatch.setattr(
        doctor, "_bounds", lambda: {"transformers": Requirement("transformers>=99.1"), "numpy": Requirement("numpy")}
    )
    found = findings()
    assert "numpy" not in found
    assert found["transformers"]["state"] == "broken"
    assert found["transformers"]["found"].endswith("and dereason has been run with >=99.1 only")
    assert found["transformers"]["mend"] == "pip install 'transformers>=99.1'"


@pytest.mark.parametrize(("built", "words"), [(None, "install a torch built for CUDA"), ("13.0", "update the driver")])
def test_doctor_sees_a_gpu_that_torch_cannot_use(
    built: str | None, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "gpu_name", lambda: None)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    if not Path("/proc/driver/nvidia/version").exists():
        assert "NVIDIA" not in findings()["device"]["found"]
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    row = findings()["device"]
    assert row["state"] == "slow"
    assert "cannot use this machine's NVIDIA GPU" in row["found"]
    assert words in row["mend"]


def test_a_gpu_without_vllm_is_said_to_be_slow_and_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dereason.cli.main import main
    from dereason.lm.local import model as models
    from dereason.pipeline import plan
    from dereason.training import rl

    here = {"vllm": False}
    for module in (models, plan, rl):
        monkeypatch.setattr(module, "on_cuda", lambda device: True)
    for module in (models, plan, rl, doctor):
        monkeypatch.setattr(module, "has_vllm", lambda: here["vllm"])
    monkeypatch.setattr(doctor, "gpu_name", lambda: "a GPU")
    (found,) = [f for f in doctor.examine(tmp_path) if f["check"] == "vllm"]
    assert found["state"] == "slow"
    assert "several times" in found["found"]
    assert "dereason[vllm]" in found["mend"]
    dry = ["run", "quickstart", "--dry-run", "--json", "--run-dir", str(tmp_path / "run")]
    assert main(dry) == 0
    (slow,) = json.loads(capsys.readouterr().out)["slow"]
    assert "responses by the local backend; arm" in slow
    assert "rollouts by engine" in slow
    here["vllm"] = True
    assert main(dry) == 0
    assert not json.loads(capsys.readouterr().out)["slow"]
    assert main([*dry, "--set", "model.backend=local"]) == 0
    assert "set rollouts and backend" in json.loads(capsys.readouterr().out)["slow"][0]
