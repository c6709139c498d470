"""Rewards: from judged rollouts to numbers."""
