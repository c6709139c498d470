"""Methods that mix SFT and RL in one phase: a module each, on one frame (:mod:`~dereason.training.joint.frame`)."""
